"""Coded inference, end to end: split, encode, `f_conv` on n pieces, decode, head.

The convolutional part is a chain of coded stages, each with the blocks before it that
are computed whole, and the blocks after the last one. The input `[B, H, W, C]` of a
coded stage is split, encoded, computed, decoded and merged before the next one begins.
What blocks behind it need beside its output the client keeps, see `types.State`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from coded_jax.checks import require, require_form, require_shape
from coded_jax.codes.erasures import moved_roles
from coded_jax.codes.quorum import suffices_where
from coded_jax.devices import placement
from coded_jax.devices.placement import PieceMap, run_locally
from coded_jax.inference.pixels import normalise
from coded_jax.inference.stages import (
    CodedStage,
    Segment,
    begin_stage,
    compute,
    end_stage,
    run_stage,
    stage_results,
    whole_stage,
)
from coded_jax.inference.tails import TailCopy
from coded_jax.types import (
    BaseModel,
    Code,
    CodeShape,
    Kept,
    PyTree,
    State,
    apart,
)


class Examples(NamedTuple):
    """The images that a pipeline takes, and the kind of its answers.

    Attributes:
      shape: `(H, W, C)` of one image, which the first split is planned for.
      mean, std: `[C]`, of the image channels in units of the pixel range `[0, 1]`;
        images are uint8 then. If None, images are real numbers, taken as they are.
      grouped: whether k images are coded together, and each data result is an answer of
        its own (see `data.groups`); labels are then `[B, k]`.
      values: whether the head gives values `[B, H', W', C']`, and no logits of classes,
        see `types.Dataset`.
    """

    shape: tuple[int, int, int] = (0, 0, 0)
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    grouped: bool = False
    values: bool = False


class Coding(NamedTuple):
    """The sizes of a pipeline's codes, and what its stages have in common.

    Attributes:
      k, r: data and parity pieces of every coded stage.
      recipe: of `LearnedConfig`, by which the codes are built and trained.
      parity_moves: whether devices whose results were lost in a stage compute the
        parity pieces of the next one.
      dtype: in which encoders, blocks and decoders compute; their parameters and the
        head stay float32.
    """

    k: int
    r: int
    recipe: str = "systematic"
    parity_moves: bool = False
    dtype: str = "float32"


class Pipeline(NamedTuple):
    """The functions of a coded inference; its variables are passed beside it.

    It is hashable, so that it can be a static argument of a jitted function. The
    parameters of its codes are a tuple with one entry for each coded stage, and one
    more for the tail's copy if there is one.

    Attributes:
      base: the CNN; its blocks may be other ones than those of the stages, which
        compute the same.
      stages: the coded stages, in order; none where the base model is computed whole.
      after: the blocks between the last decoder and the head.
      coding: sizes of the codes, and what the stages have in common.
      examples: what it takes and answers.
      mesh: the devices, see `placement`; None for the default one.
      tail_copy: a second copy of what follows the last decoder, which answers those
        inputs that have lost a data result; None for the base model's own.
    """

    base: BaseModel
    stages: tuple[CodedStage, ...]
    after: Segment
    coding: Coding
    examples: Examples = Examples()
    mesh: Mesh | None = None
    tail_copy: TailCopy | None = None

    @property
    def k(self) -> int:
        """Data pieces of a stage."""
        return self.coding.k

    @property
    def r(self) -> int:
        """Parity pieces of a stage."""
        return self.coding.r

    @property
    def dtype(self) -> str:
        """Type in which encoders, blocks and decoders compute."""
        return self.coding.dtype

    @property
    def n(self) -> int:
        """Results of a stage, of data and parity pieces."""
        return self.k + self.r

    @property
    def image_dtype(self) -> str:
        """`"uint8"` for pixels to be normalised, `"float32"` for images as they are."""
        return "float32" if self.examples.mean is None else "uint8"

    @property
    def images_per_input(self) -> int:
        """Images that one input holds: k where images are coded together, else 1."""
        return self.k if self.examples.grouped else 1

    @property
    def systematic(self) -> bool:
        """Returns whether answers without losses are those of the uncoded network."""
        return all(stage.code.systematic for stage in self.stages)

    @property
    def whole_unless_lost(self) -> bool:
        """Returns whether stages without data losses can skip coding."""
        codes = [stage.code for stage in self.stages]
        return self.systematic and not any(code.traits.lossy for code in codes)

    @property
    def exact(self) -> bool:
        """Returns whether pieces suffice for their shares of the features."""
        return all(stage.plan.exact for stage in self.stages)

    @property
    def learns(self) -> bool:
        """Returns whether a code has parameters that a training sets step by step."""
        params = jax.eval_shape(self.init, jax.random.key(0))
        traits = [stage.code.traits for stage in self.stages]
        at_once = all(own.constants or own.fit for own in traits)
        return bool(jax.tree.leaves(params)) and not at_once

    @property
    def nonnegative(self) -> bool:
        """Returns whether a code needs features that are never negative."""
        return any(stage.code.traits.nonnegative for stage in self.stages)

    def run_tail(
        self, variables: PyTree, decoded: State
    ) -> tuple[jax.Array, jax.Array]:
        """Computes the features that the head is given, float32 `[B, M*, M'*, D]`, and
        the logits, from the output of the last decoder."""
        features = compute(self.after, variables, decoded).astype(jnp.float32)
        return features, self.base.head(variables, features)

    def init(self, key: jax.Array) -> PyTree:
        """Returns initial parameters of all codes, and of the tail's copy."""
        keys = jax.random.split(key, len(self.stages))
        of_codes = tuple(
            stage.code.init(key) for stage, key in zip(self.stages, keys, strict=True)
        )
        return (
            of_codes if self.tail_copy is None else (*of_codes, self.tail_copy.init())
        )

    def of_stages(self, params: PyTree) -> PyTree:
        """Returns the parameters of the codes, one entry for each coded stage."""
        return params[: len(self.stages)]

    def with_codes(self, change: Callable[[CodeShape, Code], Code]) -> Pipeline:
        """Returns the pipeline with `change(shape, code)` in place of each `code`."""

        def changed(stage: CodedStage) -> CodedStage:
            shape = CodeShape.of(stage.plan, self.r)
            return stage._replace(code=change(shape, stage.code))

        return self._replace(stages=tuple(map(changed, self.stages)))


def inputs_of(pipeline: Pipeline, images: jax.Array) -> jax.Array:
    """Prepares images `[B, H, W, C]` for the first block: uint8 pixels are normalised;
    without a mean and a deviation, real numbers are taken as they are.

    Raises:
      ValueError: `images` are of the other kind.
    """
    mean, std = pipeline.examples.mean, pipeline.examples.std
    if mean is not None and std is not None:
        return normalise(images, mean, std).astype(pipeline.dtype)
    real = jnp.issubdtype(images.dtype, jnp.floating)
    require_form("images", images, real, "real numbers, without a mean and std,")
    return jnp.asarray(images).astype(pipeline.dtype)


def exact_outputs(
    pipeline: Pipeline, frozen: PyTree, images: jax.Array
) -> tuple[jax.Array, ...]:
    """Computes what the coded stages put out where nothing is coded or lost.

    Returns:
      For each coded stage `[B, M*, M'*, D]`.
    """
    x, outputs = inputs_of(pipeline, images), []
    for stage in pipeline.stages:
        x = whole_stage(stage, frozen, x)
        outputs.append(apart(x)[0])
    return tuple(outputs)


def base_features(pipeline: Pipeline, frozen: PyTree, images: jax.Array) -> jax.Array:
    """Computes the uncoded features `[B, M*, M'*, D]` of images `[B, H, W, C]`."""
    x = inputs_of(pipeline, images)
    for stage in pipeline.stages:
        x = whole_stage(stage, frozen, x)
    return compute(pipeline.after, frozen, x)


class Results(NamedTuple):
    """The results of a coded stage, which no loss has changed yet.

    Attributes:
      features: `[n, B, M, M', D]`.
      kept: what the client has kept beside them, arrays `[B, ...]`.
    """

    features: jax.Array
    kept: Kept = ()


def from_decoder(
    pipeline: Pipeline,
    frozen: PyTree,
    params: PyTree,
    results: Results,
    available: Sequence[jax.Array],
    *,
    spread: PieceMap = run_locally,
) -> State:
    """Runs the pipeline from the decoder of the first coded stage up to the last one.

    Where one device simulates all, a stage of a systematic code that loses no data
    result of the batch is computed whole, which gives the same features, up to
    rounding, for fewer operations.

    Args:
      pipeline: the functions.
      frozen: variables of the base model.
      params: of the codes.
      results: of the first stage.
      available: for each coded stage, bool `[n, B]` or `[n, 1]`.
      spread: how the pieces come to their devices.

    Returns:
      `[B, M*, M'*, D]`, the output of the last decoder, with what is kept.
    """
    first, *later = pipeline.stages
    state = end_stage(first, params[0], results.features, available[0], results.kept)
    shortened = spread is run_locally and pipeline.whole_unless_lost
    for i, stage in enumerate(later, 1):
        run = functools.partial(
            run_stage,
            stage,
            frozen,
            params[i],
            available=available[i],
            spread=spread,
        )
        if shortened:
            whole = functools.partial(whole_stage, stage, frozen)
            nothing_lost = jnp.all(available[i][: pipeline.k])
            state = jax.lax.cond(nothing_lost, whole, run, state)
        else:
            state = run(state)
    return state


def classify(
    pipeline: Pipeline,
    frozen: PyTree,
    params: PyTree,
    decoded: State,
    available: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Runs the tail on the output of the last decoder, or its copy where results of the
    data pieces were lost.

    Where one mask holds for all inputs one of the two is computed; else both are, and
    each input has the answer of its own.

    Args:
      pipeline: the functions.
      frozen: variables of the base model.
      params: of the codes, and of the tail's copy.
      decoded: from `from_decoder`.
      available: bool `[S, n, B]` or `[S, n, 1]`, see `has_answer`.

    Returns:
      The features that the head is given, float32 `[B, M*, M'*, D]`, and the logits,
      float32 `[B, ..., classes]`, NaN for images that have no answer.
    """
    run, copy = pipeline.run_tail, pipeline.tail_copy
    if copy is None:
        features, logits = run(frozen, decoded)
    else:
        lost = lost_answers(pipeline, available)
        own = lambda: run(copy.variables(params[-1], frozen), decoded)
        base = lambda: run(frozen, decoded)
        if available.shape[-1] == 1:
            features, logits = jax.lax.cond(lost[0], own, base)
        else:
            features, logits = (
                jnp.where(lost.reshape(-1, *[1] * (x.ndim - 1)), x, y)
                for x, y in zip(own(), base(), strict=True)
            )
    # Not by NaN among the features: XLA's CPU backend loses them in a max pooling.
    answered = over_positions(has_answer(pipeline, available), logits.shape)
    return features, jnp.where(answered, logits, jnp.nan)


def over_positions(of_answers: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Repeats what answers have, `[B]` or `[B, k]`, at all positions `[B, ...]`."""
    ones = [1] * (len(shape) - of_answers.ndim)
    return jnp.broadcast_to(of_answers.reshape(*of_answers.shape, *ones), shape)


def has_answer(pipeline: Pipeline, available: jax.Array) -> jax.Array:
    """Returns the mask of images with an answer: all, except of codes that wait for
    results.

    Args:
      pipeline: the functions.
      available: bool `[S, n, B]` or `[S, n, 1]`, of S coded stages.

    Returns:
      Bool, `[B]` or `[1]`; with a second axis `[k]` where results are separate.
    """
    answered = jnp.ones_like(lost_answers(pipeline, available))
    for stage, arrived in zip(pipeline.stages, available, strict=True):
        if not stage.code.traits.answers_always:
            enough = suffices_where(stage.code.quorum, pipeline.k, arrived)
            own = (arrived[: pipeline.k] | enough[None]).T
            answered &= own if pipeline.examples.grouped else enough
    return answered


def lost_answers(pipeline: Pipeline, available: jax.Array) -> jax.Array:
    """Returns the mask of images that lost a data result, shaped as `has_answer`."""
    lost = ~available.all(axis=0)[: pipeline.k]
    return lost.T if pipeline.examples.grouped else lost.any(axis=0)


def infer(
    pipeline: Pipeline,
    frozen: PyTree,
    params: PyTree,
    images: jax.Array,
    available: jax.Array,
) -> jax.Array:
    """Classifies images from the results that arrived, on every device of the mesh.

    Args:
      pipeline: the functions.
      frozen: variables of the base model.
      params: of the codes.
      images: `[B, H, W, C]`, uint8 or real, see `Examples`.
      available: bool `[n, B]` or `[n, 1]`, the same in every stage; or `[S, n, B]` or
        `[S, n, 1]`, for each of S coded stages its own.

    Returns:
      Logits, float32 `[B, ..., classes]`.

    Raises:
      ValueError: an argument has another form.
    """
    require_inputs(pipeline, params, images, available)

    def infer_part(spread: PieceMap, frozen, params, images, available) -> jax.Array:
        state = inputs_of(pipeline, images)
        for i, stage in enumerate(pipeline.stages):
            sent = begin_stage(stage, frozen, params[i], state)
            results = stage_results(stage, frozen, params[i], sent.queries, spread)
            state = end_stage(stage, params[i], results, available[i], sent.kept)
        return classify(pipeline, frozen, params, state, available)[1]

    available = of_pieces(pipeline, per_stage(pipeline, available))
    axes = (None, None, 0, mask_axis(available))
    infer_all = placement.data_parallel(pipeline.mesh, infer_part, axes)
    logits = infer_all(frozen, params, images, available)
    return placement.replicated(pipeline.mesh, logits)


def require_params(pipeline: Pipeline, params: PyTree) -> None:
    """Checks that parameters are those of as many codes as a pipeline has.

    Raises:
      ValueError: they are not.
    """
    stages, copied = len(pipeline.stages), pipeline.tail_copy is not None
    tail = " and one for the tail's copy" * copied
    fits = isinstance(params, Sequence) and len(params) == stages + copied
    accepted = f"a tuple of one entry for each of {stages} coded stages{tail}"
    require("params", type(params).__name__, fits, accepted)


def require_inputs(
    pipeline: Pipeline, params: PyTree, images: jax.Array, available: jax.Array
) -> None:
    """Checks the arguments of `infer` and of the training loss, but the variables.

    Raises:
      ValueError: one has another form.
    """
    require_params(pipeline, params)
    height, width, channels = pipeline.examples.shape
    rows = height * pipeline.images_per_input
    require_shape("images", images, ("B", rows or "H", width or "W", channels or "C"))
    stages, n, batch = len(pipeline.stages), pipeline.n, images.shape[0]
    shape = getattr(available, "shape", ())
    fits = shape[-2:] in ((n, 1), (n, batch)) and shape[:-2] in ((), (stages,))
    fits = fits and available.dtype == bool
    accepted = f"bool [{n}, {batch}] or [{n}, 1], or [{stages}, {n}, ...] for stages,"
    require_form("available", available, fits, accepted)


def per_stage(pipeline: Pipeline, available: jax.Array) -> jax.Array:
    """Repeats a mask `[n, ...]` for the S coded stages; one `[S, n, ...]` stays."""
    if available.ndim == 3:
        return available
    return jnp.broadcast_to(available, (len(pipeline.stages), *available.shape))


def of_pieces(pipeline: Pipeline, available: jax.Array) -> jax.Array:
    """Returns the pieces that arrive from the devices that answer, bool `[S, n, ...]`.

    They are the same unless parity moves, see `erasures.moved_roles`.
    """
    return moved_roles(available) if pipeline.coding.parity_moves else available


def mask_axis(available: jax.Array) -> int | None:
    """Returns the batch axis of `[S, n, B]`; None for `[S, n, 1]`, for any batch."""
    return None if available.shape[-1] == 1 else 2
