"""A coded inference with its variables, to classify images with any lost devices."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from coded_jax.checks import require, require_form, shape_text
from coded_jax.codes import (
    AnyCode,
    LearnedConfig,
    erasures,
    make_code,
    name_of,
    quorum,
)
from coded_jax.data.groups import infer_images
from coded_jax.devices import placement
from coded_jax.evaluation import confidence, predictions
from coded_jax.evaluation.predictions import TrainedPipeline
from coded_jax.inference.pipeline import Pipeline, base_features
from coded_jax.runs.config import tuples
from coded_jax.types import PyTree

compiled_infer = jax.jit(infer_images, static_argnums=0)
"""`groups.infer_images`, compiled once for all who serve or check with it."""


class Answer(NamedTuple):
    """The answers of `CodedModel.predict`.

    Attributes:
      classes: int32 `[B]`, or `[B, H', W']` where answers are images; -1 where it
        abstains.
      confidence: float32 likewise, the calibrated probability that a class is right.
    """

    classes: jax.Array
    confidence: jax.Array


class CodedModel(NamedTuple):
    """A coded inference with its variables: classifies with any results lost.

    Attributes:
      pipeline: its functions.
      frozen: variables of the base model.
      params: parameters of the codes, one entry for each coded stage.
      results: a dict, the content of the run's `results.json`; None where no run
        has evaluated the model.
    """

    pipeline: Pipeline
    frozen: PyTree
    params: PyTree
    results: Any = None

    @property
    def trained(self) -> TrainedPipeline:
        """Returns the functions with their variables, as evaluations take them."""
        return TrainedPipeline(self.pipeline, self.frozen, self.params)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """`(H, W, C)` of one image."""
        return self.pipeline.examples.shape

    @property
    def values(self) -> bool:
        """Returns whether answers are values and not classes."""
        return self.pipeline.examples.values

    @property
    def classes(self) -> int:
        """Returns the number of classes, or of channels of values."""
        return self.answer_shape[-1]

    @property
    def answer_shape(self) -> tuple[int, ...]:
        """Returns the shape of what the head gives for an image: `(classes,)`, or `(H',
        W', classes)` where answers are images."""
        shape = (self.pipeline.images_per_input, *self.image_shape)
        images = jax.ShapeDtypeStruct(shape, self.pipeline.image_dtype)
        head = lambda frozen, images: self.pipeline.base.head(
            frozen, base_features(self.pipeline, frozen, images)
        )
        return jax.eval_shape(head, self.frozen, images).shape[1:]

    def with_code(
        self,
        code: AnyCode,
        params: PyTree | None = None,
        *,
        key: jax.Array | None = None,
    ) -> CodedModel:
        """Returns the same base model with another code of as many pieces.

        Learned codes have the recipe and networks of the run, or the recipe of the
        pipeline and its default networks. A second copy of the tail, which was trained
        with the code, is left out.

        Args:
          code: its name, see `codes.CODES`, or a function `CodeShape -> Code`.
          params: of the codes, as `train` or `pipeline.init` gives them; not needed for
            a code without parameters.
          key: draws untrained parameters where `params` is None.

        Raises:
          ValueError: there is no such code, it has parameters and neither `params` nor
            `key` is given, or `params` are not those of the code, one entry for each
            coded stage.
        """
        config = LearnedConfig(recipe=self.pipeline.coding.recipe)
        if self.results is not None:
            own = self.results["config"]
            names = [x.name for x in dataclasses.fields(config) if x.name in own]
            # Settings that are younger than the run have their defaults.
            config = LearnedConfig(**{name: tuples(own[name]) for name in names})
        pipeline = self.pipeline.with_codes(
            lambda shape, _: make_code(code, shape, self.frozen, config)
        )
        coding = pipeline.coding._replace(recipe=config.recipe)
        pipeline = pipeline._replace(coding=coding, tail_copy=None)
        fresh = jax.random.key(0) if key is None else key
        expected = jax.eval_shape(pipeline.init, fresh)
        if params is None:
            needless = key is not None or not jax.tree.leaves(expected)
            source = f"trained parameters of {name_of(code)}, or key= for random ones,"
            require("params", params, needless, source)
            params = pipeline.init(fresh)
        given, wanted = _shapes_by_path(params), _shapes_by_path(expected)
        source = f"{wanted}, as of init of {name_of(code)},"
        require("params", given, given == wanted, source)
        params = placement.put_replicated(pipeline.mesh, params)
        return CodedModel(pipeline, self.frozen, params)

    def stops_within(self, points: float) -> CodedModel:
        """Returns the same model with a quorum by accuracy, of views: the first results
        suffice that reach the network's accuracy but for some points.

        Args:
          points: of accuracy below the network's, both on the validation part.

        Raises:
          ValueError: the model is none of views with results, or no set of results
            reaches that.
        """
        sets = (self.results or {}).get("sets")
        accepted = "one of views, as load and protect return it,"
        if self.results is None or sets is None:
            raise ValueError(f"model: one without sets given, {accepted} accepted")
        base = self.results["base"]["validation_accuracy"]
        every = range(self.pipeline.n)
        below = {tuple(own["lost"]): 100 * (base - own["accuracy"]) for own in sets}
        least = min(below.values())
        require("within", points, points >= least, f"{least:.2f} or more, in points,")
        reached = [lost for lost, drop in below.items() if drop <= points]
        rule = quorum.one_of_sets([{*every} - {*lost} for lost in reached])
        change = lambda shape, code: code._replace(quorum=rule)
        return self._replace(pipeline=self.pipeline.with_codes(change))

    def settled(self) -> CodedModel:
        """Returns the same model for serving and export: what each request would add
        up again for the tail's copy is at hand. It is for no further training."""
        copy = self.pipeline.tail_copy
        if copy is None or copy.settled:
            return self
        copy, own = copy.settle(self.params[-1], self.frozen)
        pipeline = self.pipeline._replace(tail_copy=copy)
        return self._replace(pipeline=pipeline, params=(*self.params[:-1], own))

    def check_images(self, images: Any, grouped: bool = True) -> None:
        """Checks that these are images of the model, `[B, H, W, C]`.

        Args:
          images: to be checked.
          grouped: whether B has to be a multiple of the images that are coded together.

        Raises:
          ValueError: they have another shape or another dtype than the pipeline's
            `image_dtype`, or B is no multiple of the images that are coded together.
        """
        group = self.pipeline.images_per_input if grouped else 1
        count, *shape = np.shape(images) or (0,)
        dtype = self.pipeline.image_dtype
        fits = tuple(shape) == self.image_shape and count >= 1 and count % group == 0
        fits = fits and getattr(images, "dtype", None) == dtype
        multiple = "1 or more" if group == 1 else f"a multiple of {group}"
        accepted = (
            f"{dtype} {shape_text(('B', *self.image_shape))} with a B of {multiple}"
        )
        require_form("images", images, fits, accepted)

    def logits(self, images: Any, lost: Iterable[int] = ()) -> jax.Array:
        """Computes logits from the results that arrived.

        The losses are data, so one compilation serves all patterns; a new batch size
        compiles anew.

        Args:
          images: `[B, H, W, C]`, uint8 pixels as in the data set; or float32, as the
            base model takes them, where the pipeline has no mean and deviation.
          lost: indices of the lost results: data pieces `0..k-1`, parity `k..n-1`. Of
            more than `r` the decoder makes what it can, mostly a worse answer.

        Returns:
          float32 `[B, classes]`, or `[B, H', W', classes]` where answers are images,
          classes of positions or values; NaN where the code waits for more results.

        Raises:
          ValueError: wrong shape or dtype, or every result is lost.
        """
        self.check_images(images)
        n = self.pipeline.n
        pattern = erasures.pattern_of(lost, n)
        require("lost", pattern, len(pattern) < n, f"at most {n - 1} of {n} results")
        available = erasures.available(pattern, n)
        images = placement.put_replicated(self.pipeline.mesh, images)
        return compiled_infer(
            self.pipeline, self.frozen, self.params, images, available
        )

    def classify(self, images: Any, lost: Iterable[int] = ()) -> jax.Array:
        """Returns classes int32 `[B]`, or `[B, H', W']` where answers are images, -1
        for no answer; the rest as `logits`.

        Raises:
          ValueError: as for `logits`, or answers are values.
        """
        self._require_classes()
        return predictions.classes_of(self.logits(images, lost))

    def predict(
        self, images: Any, lost: Iterable[int] = (), abstain_below: float = 0.0
    ) -> Answer:
        """Classifies with calibrated confidence, see `evaluation.confidence`.

        Args:
          images, lost: as for `logits`.
          abstain_below: no class is given below this confidence; the errors that this
            avoids are in the run's `results.json`, under `confidence`.

        Raises:
          ValueError: as for `classify`, the threshold is not in `[0, 1]`, or no run has
            calibrated the confidence for as many lost results.
        """
        self._require_classes()
        require("abstain_below", abstain_below, 0 <= abstain_below <= 1, "0..1")
        pattern = erasures.pattern_of(lost, self.pipeline.n)
        logits = self.logits(images, pattern)
        calibrated = (self.results or {}).get("confidence", {})
        accepted = f"as many as in {[*calibrated]}, which a run has calibrated"
        require("lost", pattern, str(len(pattern)) in calibrated, accepted)
        available = erasures.available(pattern, self.pipeline.n)
        temperatures = confidence.temperatures(
            calibrated, self.pipeline, available, logits.shape
        )
        sure = confidence.confidence(logits, temperatures)
        answered = (sure > 0) & (sure >= abstain_below)
        return Answer(jnp.where(answered, logits.argmax(-1), -1), sure)

    def _require_classes(self) -> None:
        """Raises ValueError if answers are values."""
        if self.values:
            raise ValueError(
                "model: one whose answers are values given, one with classes accepted; "
                "`logits` gives the values"
            )


def _shapes_by_path(tree: PyTree) -> dict[str, str]:
    return {
        jax.tree_util.keystr(path): shape_text(np.shape(x))
        for path, x in jax.tree.leaves_with_path(tree)
    }
