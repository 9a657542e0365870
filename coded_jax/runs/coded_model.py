"""A finished run, loaded to classify images with any set of lost devices."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from coded_jax.codes import erasures
from coded_jax.data.groups import infer_images
from coded_jax.devices import placement
from coded_jax.devices.meshes import make_mesh
from coded_jax.evaluation import confidence, predictions
from coded_jax.inference.pipeline import Pipeline
from coded_jax.runs import workdir
from coded_jax.runs.build import build_pipeline
from coded_jax.runs.config import Config
from coded_jax.runs.places import absolute
from coded_jax.runs.ranges import OWN
from coded_jax.runs.regime import regime_of
from coded_jax.training import checkpoints
from coded_jax.training.steps import initial_state
from coded_jax.types import PyTree

compiled_infer = jax.jit(infer_images, static_argnums=0)
"""`groups.infer_images`, compiled once for all who serve or check with it."""


class Answer(NamedTuple):
    """What `CodedModel.predict` says of each image.

    Attributes:
      classes: int32 `[B]`, -1 where it abstains.
      confidence: float32 `[B]`, the calibrated probability that the class is right.
    """

    classes: jax.Array
    confidence: jax.Array


class CodedModel(NamedTuple):
    """A trained coded inference.

    Attributes:
      pipeline: its functions.
      frozen: variables of the base model.
      params: parameters of the code.
      image_shape: `(H, W, C)`.
      results: the content of the run's `results.json`.
    """

    pipeline: Pipeline
    frozen: PyTree
    params: PyTree
    image_shape: tuple[int, int, int]
    results: dict[str, Any]

    def checked(self, images: Any) -> Any:
        """The images as they are.

        Raises:
          ValueError: they are not uint8 `[B, H, W, C]`, or B is not a multiple of the
            images that are coded together.
        """
        shape, dtype = np.shape(images), getattr(images, "dtype", type(images).__name__)
        fits = len(shape) == 4 and shape[0] >= 1 and shape[1:] == self.image_shape
        group = self.pipeline.images_per_input
        if dtype != np.uint8 or not fits or shape[0] % group:
            accepted = ", ".join(map(str, self.image_shape))
            multiple = "1 or more" if group == 1 else f"a multiple of {group}"
            raise ValueError(
                f"images: {dtype} {list(shape)} given, uint8 [B, {accepted}] accepted, "
                f"with a B of {multiple}"
            )
        return images

    def logits(self, images: Any, lost: Iterable[int] = ()) -> jax.Array:
        """Logits from the results that arrived.

        What is lost is data, so one compilation serves all patterns; a new batch size
        compiles anew.

        Args:
          images: uint8 `[B, H, W, C]`, pixel values as in the data set.
          lost: indices of the lost results: data pieces `0..k-1`, parity `k..n-1`.

        Returns:
          float32 `[B, classes]`.

        Raises:
          ValueError: wrong shape or dtype, or more lost results than the code's `r`.
        """
        images = self.checked(images)
        lost = erasures.pattern_of(lost, self.pipeline.n)
        if len(lost) > self.pipeline.r:
            raise ValueError(
                f"lost: {len(lost)} results given, at most r={self.pipeline.r} accepted"
            )
        available = erasures.available(lost, self.pipeline.n)
        images = placement.put_replicated(self.pipeline.mesh, images)
        return compiled_infer(
            self.pipeline, self.frozen, self.params, images, available
        )

    def classify(self, images: Any, lost: Iterable[int] = ()) -> jax.Array:
        """Classes int32 `[B]`, -1 where a code has no answer; the rest as `logits`."""
        return predictions.classes_of(self.logits(images, lost))

    def predict(
        self, images: Any, lost: Iterable[int] = (), abstain_below: float = 0.0
    ) -> Answer:
        """Classes with their calibrated confidence, see `confidence`.

        Args:
          images, lost: as for `logits`.
          abstain_below: no class is given below this confidence; what that costs and
            gains stands in the run's `results.json`, under `confidence`.

        Raises:
          ValueError: as for `logits`, the threshold is not in `[0, 1]`, or the run was
            not evaluated with as many lost results.
        """
        if not 0 <= abstain_below <= 1:
            raise ValueError(f"abstain_below: {abstain_below} given, 0..1 accepted")
        lost = erasures.pattern_of(lost, self.pipeline.n)
        logits = self.logits(images, lost)
        if str(len(lost)) not in self.results.get("confidence", {}):
            raise ValueError(
                f"lost: {len(lost)} results given, for which the run has no calibrated "
                "confidence; run it again, with more of them tried"
            )
        available = erasures.available(lost, self.pipeline.n)
        sure = confidence.confidence(
            logits,
            confidence.temperatures(
                self.results["confidence"], self.pipeline, available, len(logits)
            ),
        )
        answered = (sure > 0) & (sure >= abstain_below)
        return Answer(jnp.where(answered, logits.argmax(-1), -1), sure)


def load(
    path: str | os.PathLike,
    devices: int | None = None,
    mesh: tuple[int, int] | None = None,
) -> CodedModel:
    """Loads the best parameters of a finished run.

    Args:
      path: its workdir.
      devices, mesh: where it is computed; see `make_mesh`. By default the
        pieces are spread over all devices.

    Raises:
      ValueError: it holds no finished run, or one of `own.protect`, its checkpoints are
        damaged, or there are no such devices.
    """
    folder = absolute(path)
    results = workdir.read_results(folder)
    config = Config.from_json(results["config"])
    if config.base_model == OWN:
        raise ValueError(
            f"workdir: {os.fspath(path)!r} given, that of a CNN of its own, which only "
            "the call of coded_jax.protect that made it can load"
        )
    image_shape = tuple(results["image_shape"])
    statistics = results["normalisation"]
    pipeline = build_pipeline(
        config,
        image_shape,
        results["classes"],
        tuple(statistics["mean"]),
        tuple(statistics["std"]),
        make_mesh(config.n, devices, mesh),
    )

    def init_base(key: jax.Array) -> PyTree:
        return pipeline.base.init(key, image_shape, results["classes"])

    frozen, params = placement.put_replicated(
        pipeline.mesh,
        (
            best_params(folder, config, results, "base", init_base),
            best_params(folder, config, results, "code", pipeline.init),
        ),
    )
    return CodedModel(pipeline, frozen, params, image_shape, results)


def best_params(
    folder: Path,
    config: Config,
    results: dict[str, Any],
    phase: str,
    init: Callable[[jax.Array], PyTree],
) -> PyTree:
    """The best parameters of one phase of a finished run.

    Args:
      folder: the workdir.
      config: of the run.
      results: the content of its `results.json`.
      phase: `"base"`, `"code"` or the name of a baseline, see `workdir.phase_of`.
      init: `key -> params` of that phase.

    Raises:
      ValueError: the checkpoint is damaged or missing.
    """
    if not jax.tree.leaves(jax.eval_shape(init, jax.random.key(0))):
        return init(jax.random.key(0))  # nothing has been trained
    optimizer = regime_of(config, phase).optimizer(examples=1)
    like = jax.eval_shape(lambda: initial_state(init, optimizer, jax.random.key(0)))
    found = checkpoints.restore(workdir.checkpoint_folder(folder, phase), like)
    if found is None or found.step != results["steps"][phase]:
        raise ValueError(
            f"workdir: the last checkpoint of {phase!r} in {os.fspath(folder)!r} is "
            "damaged or missing; run the experiment again to restore it"
        )
    return found.state[1].params
