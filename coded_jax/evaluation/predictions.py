"""Predictions for every erasure pattern on every image, and statistics of them."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.typing import ArrayLike

from coded_jax.codes import erasures
from coded_jax.codes.erasures import Pattern
from coded_jax.devices import placement
from coded_jax.devices.meshes import padded_size
from coded_jax.devices.placement import PieceMap
from coded_jax.inference import pipeline as inference
from coded_jax.inference.pipeline import Pipeline, Results, over_positions
from coded_jax.inference.stages import Segment, begin_stage, stage_results
from coded_jax.types import Code, PyTree, are_values, chain

CHUNK = 500
LABELS = 2**15
"""Labels of a chunk at most, of images with one for each position."""

DRAWN_FROM = 0
"""Seed of the draws, the same for every code, and every call."""

DRAWS = {
    "held": lambda key, lost, n, stages, rows: erasures.in_stages(lost, n, stages),
    "per_stage": erasures.drawn_in_stages,
    "later": erasures.begin_in_stages,
}
"""Losses of several coded stages: a pattern holds in all of them; it holds in the
first, and every other one loses as many results, drawn anew; or it holds from one stage
on, which is drawn. Draws are made for every image."""
STAGE_LOSSES = tuple(DRAWS)


def classes_of(logits: jax.Array) -> jax.Array:
    """Returns classes int32 `[...]` of logits `[..., classes]`, -1 if not finite."""
    finite = jnp.isfinite(logits).all(-1)
    return jnp.where(finite, logits.argmax(-1), -1)


def counted(labels: Any) -> Any:
    """Returns the mask of labels that count, bool: all but -1, `[N, ...]`; of values
    `[N, H', W', C']` all positions, `[N, H', W']`."""
    return np.ones(labels.shape[:-1], bool) if are_values(labels) else labels >= 0


class Prediction(NamedTuple):
    """The predictions for a batch of inputs under one erasure pattern.

    All fields have one entry for each answer: `[B]`; `[B, H', W']` where answers are
    images; or `[B, k]` where k images are coded together. Logits have one more axis,
    and so have labels that are values, and what is expected then.

    Attributes:
      logits: float32 `[..., classes]`; NaN where there is no answer.
      expected: int32, classes by the uncoded base model, -1 if not finite; or its
        values.
      labels: int32, -1 for what is not to be counted; or values.
      error: float32, mean squared error of the features that the head is given; NaN
        where an image of the input has no answer.
      decoded: bool, see `decoded`.
      weight: float32, 0 for what does not count, else 1.
    """

    logits: jax.Array
    expected: jax.Array
    labels: jax.Array
    error: jax.Array
    decoded: jax.Array
    weight: jax.Array

    @property
    def classes(self) -> jax.Array:
        """Predicted classes, int32; -1 where there is no answer."""
        return classes_of(self.logits)


Statistic = Callable[[Prediction, jax.Array], jax.Array]
"""`(prediction, parameter) -> [..., Q]`, Q numbers for each answer."""


def decoded(pipeline: Pipeline, available: jax.Array) -> jax.Array:
    """Returns the mask of answers that a decoder made from other results.

    Args:
      pipeline: the coded inference.
      available: bool `[n, B]` or `[n, 1]`, or `[S, n, ...]` for each stage its own.

    Returns:
      Bool of the shape of `pipeline.has_answer`: for a systematic code, whether a data
      result that the answer needs is lost; else True.
    """
    available = inference.per_stage(pipeline, available)
    lost = inference.lost_answers(pipeline, available)
    return lost if pipeline.systematic else jnp.ones_like(lost)


class TrainedPipeline(NamedTuple):
    """A pipeline with its variables.

    Attributes:
      pipeline: the coded inference.
      frozen: variables of the base model.
      params: parameters of the codes.
    """

    pipeline: Pipeline
    frozen: PyTree
    params: PyTree

    def begun_at(self, number: int) -> TrainedPipeline:
        """Returns the same with the first coded stages, so many, computed whole."""
        if not number:
            return self
        later = _begun_at(self.pipeline, int(number))
        return TrainedPipeline(later, self.frozen, self.params[number:])


@functools.lru_cache(maxsize=64)  # the same each time, so that it is compiled once
def _begun_at(pipeline: Pipeline, number: int) -> Pipeline:
    before, first = pipeline.stages[:number], pipeline.stages[number]
    blocks = [part.f_conv for stage in before for part in (stage.before, stage)]
    whole = Segment(chain((*blocks, first.before.f_conv)), (1, first.blocks[0] - 1))
    later = (first._replace(before=whole), *pipeline.stages[number + 1 :])
    return pipeline._replace(stages=later)


class Uncoded(NamedTuple):
    """Some rows of a split, and what the base model alone computes of them.

    Attributes:
      images: `[B, H, W, C]`.
      labels: int32 `[B, ...]`, or values.
      weight: float32 for each label, 0 for rows past the end of the split and labels
        that do not count, else 1.
      target: float32 `[B, M*, M'*, D]`, what the head is given without losses.
      expected: int32 of the labels' shape, see `classes_of`; or values.
    """

    images: jax.Array
    labels: jax.Array
    weight: jax.Array
    target: jax.Array
    expected: jax.Array


@functools.partial(jax.jit, static_argnames="size")
def take_rows(
    arrays: dict[str, jax.Array], start: jax.Array, size: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Takes `size` rows of a split from `start` on, repeating the last one at the end;
    returns the first three fields of `Uncoded`.

    It is a program of its own, so that larger ones do not depend on the split's size
    and are compiled once for validation and test images.
    """
    rows = start + jnp.arange(size)
    images = arrays["images"].at[rows].get(mode="clip")
    labels = arrays["labels"].at[rows].get(mode="clip")
    counts = counted(labels)
    exists = over_positions((rows < len(arrays["labels"])), counts.shape)
    return images, labels, jnp.asarray(exists & counts, jnp.float32)


def uncoded_chunks(
    pipeline: Pipeline,
    frozen: PyTree,
    arrays: dict[str, jax.Array],
    size: int | None = None,
) -> Iterator[Uncoded]:
    """Yields all rows of a split, `size` at a time, by default all up to `CHUNK`; other
    arguments as of `measure`."""
    total, *positions = arrays["labels"].shape
    most = max(1, min(CHUNK, LABELS // math.prod(positions)))
    size = padded_size(pipeline.mesh, size or min(most, total))
    uncoded = without_code(pipeline)
    for start in range(0, total, size):
        images, labels, weight = take_rows(arrays, np.int32(start), size)
        target, expected = run_uncoded(uncoded, frozen, images)
        yield Uncoded(images, labels, weight, target, expected)


def without_code(pipeline: Pipeline) -> Pipeline:
    """Returns the pipeline for `run_uncoded`, which uses no code: the same for all
    codes around a base model, so that one program serves them."""
    return pipeline.with_codes(lambda shape, code: _NO_CODE)


_NO_CODE = Code(lambda key: {}, lambda params, x: x, lambda params, x, available: x)


@functools.partial(jax.jit, static_argnames="pipeline")
def run_uncoded(
    pipeline: Pipeline, frozen: PyTree, images: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Computes the base model's features, float32, and its classes, see `classes_of`,
    or its values."""

    def compute_part(spread: PieceMap, frozen: PyTree, images: jax.Array) -> tuple:
        features = inference.base_features(pipeline, frozen, images)
        features = features.astype(jnp.float32)
        answers = pipeline.base.head(frozen, features)
        return features, answers if pipeline.examples.values else classes_of(answers)

    compute = placement.data_parallel(pipeline.mesh, compute_part, (None, 0), (0, 0))
    return compute(frozen, images)


@functools.partial(jax.jit, static_argnames="pipeline")
def run_devices(
    pipeline: Pipeline, frozen: PyTree, params: PyTree, images: jax.Array
) -> Results:
    """Computes the n results of the first coded stage."""

    def compute_part(spread: PieceMap, frozen, params, images) -> tuple:
        stage, own = pipeline.stages[0], params[0]
        images = inference.inputs_of(pipeline, images)
        sent = begin_stage(stage, frozen, own, images)
        return stage_results(stage, frozen, own, sent.queries, spread), sent.kept

    axes = (None, None, 0)
    compute = placement.data_parallel(pipeline.mesh, compute_part, axes, (1, 0))
    return Results(*compute(frozen, params, images))


@functools.partial(jax.jit, static_argnames="pipeline")
def decode_chunk(
    pipeline: Pipeline,
    frozen: PyTree,
    params: PyTree,
    *,
    results: Results,
    uncoded: Uncoded,
    available: jax.Array,
) -> Prediction:
    """Predicts a chunk under one pattern, from the n results of its rows."""

    def decode_part(
        spread: PieceMap, frozen, params, available, features, kept, target
    ) -> tuple[jax.Array, jax.Array]:
        results = Results(features, kept)
        decoded = inference.from_decoder(
            pipeline, frozen, params, results, available, spread=spread
        )
        merged, logits = inference.classify(
            pipeline, frozen, params, decoded, available
        )
        error = jnp.square(merged - target).mean(axis=(1, 2, 3))
        answered = inference.has_answer(pipeline, available)
        answered = answered.reshape(len(answered), -1).all(axis=1)
        return logits, jnp.where(answered, error, jnp.nan)

    axes = (None, None, inference.mask_axis(available), 1, 0, 0)
    compute = placement.data_parallel(pipeline.mesh, decode_part, axes)
    logits, error = compute(frozen, params, available, *results, uncoded.target)
    shape = uncoded.weight.shape
    return Prediction(
        logits=logits,
        expected=uncoded.expected,
        labels=uncoded.labels,
        error=over_positions(error, shape),
        decoded=over_positions(decoded(pipeline, available), shape),
        weight=uncoded.weight,
    )


@functools.partial(jax.jit, static_argnames=("mesh", "statistic", "per_image"))
def _summarise(
    prediction: Prediction,
    parameter: jax.Array,
    *,
    mesh: Mesh | None,
    statistic: Statistic,
    per_image: bool,
) -> jax.Array:
    """Computes a statistic of a chunk: its sum, or for each label.

    It is a program of its own, so that decoders are compiled once for all statistics,
    and a statistic once for all codes.
    """
    values = statistic(prediction, parameter)
    if not per_image:
        weighed = jnp.where(prediction.weight[..., None] > 0, values, 0)
        values = weighed.sum(axis=tuple(range(prediction.weight.ndim)))
    return placement.replicated(mesh, values)


def measure(
    trained: TrainedPipeline,
    arrays: dict[str, jax.Array],
    patterns: Sequence[Pattern],
    statistic: Statistic,
    *,
    parameters: ArrayLike | None = None,
    per_image: bool = False,
    stage_losses: str = "held",
    first_row: int = 0,
    uncoded: Iterable[Uncoded] | None = None,
    results: Sequence[Results] | None = None,
) -> np.ndarray:
    """Computes a statistic of the predictions for every pattern on every image.

    The n results of the first coded stage are computed once for each image, and so are
    the predictions for all patterns that lose no data result of a systematic code. One
    compilation serves all patterns, splits and statistics; one for each stage, where
    losses may begin in any.

    Args:
      trained: the coded inference and its variables.
      arrays: `images` `[N, H, W, C]` and `labels`, N > 0, see `types.Dataset`; labels
        of -1 do not count.
      patterns: P erasure patterns.
      statistic: see `Statistic`; a function of a module, since it is compiled once.
      parameters: `[P, ...]`, the statistic's parameter for each pattern; 0 if None.
      per_image: whether to return the values of each label instead of their means.
      stage_losses: see `STAGE_LOSSES`.
      first_row: number of the first image, for these draws, where the arrays are a
        later part of a split.
      uncoded: of `uncoded_chunks`, where they have been computed before; not used for
        losses that begin `"later"`.
      results: of `run_devices` for each of these chunks, where no parameter changes
        them.

    Returns:
      `[P, Q]`, means over the labels that count; or `[P, N', Q]`, the values of the N'
      labels that count.
    """
    labels = np.asarray(arrays["labels"])
    counts, begins, size = counted(labels), np.zeros(len(labels), int), None
    pipeline, stages = trained.pipeline, len(trained.pipeline.stages)
    if stage_losses == "later" and pipeline.whole_unless_lost:
        # Images whose losses begin in the same stage are measured together, as if they
        # were held: the stages before are computed whole for them.
        rows = first_row + jnp.arange(len(labels))
        key = jax.random.key(DRAWN_FROM)
        begins = np.asarray(erasures.beginnings(key, stages, rows))
        stage_losses, uncoded = "held", None
        # The same for groups of any number of rows, of which few are then repeated.
        size = min(CHUNK, LABELS // counts[0].size or 1, -(-len(rows) // (8 * stages)))
    parameters = np.zeros(len(patterns)) if parameters is None else parameters
    of_pattern = jnp.asarray(parameters, jnp.float32)
    summarise = functools.partial(
        _summarise, mesh=pipeline.mesh, statistic=statistic, per_image=per_image
    )
    order, chunks = [], []
    for begin in np.unique(begins):
        group, later = np.flatnonzero(begins == begin), trained.begun_at(begin)
        whole = len(group) == len(labels)
        own = arrays if whole else {name: x[group] for name, x in arrays.items()}
        for i, chunk in enumerate(uncoded or uncoded_chunks(*later[:2], own, size)):
            rows = first_row + jnp.arange(len(chunk.labels))
            first_row += len(rows)
            known = results[i] if results else None
            made = _predictions(later, chunk, patterns, stage_losses, rows, known)
            chunks.append([*map(summarise, made, of_pattern)])
            of_chunk, group = np.split(group, [len(rows)])
            order.append(of_chunk)
    # Fetched once, after everything has been dispatched.
    values = jax.device_get(chunks)
    if not per_image:
        return np.asarray(values, np.float64).sum(axis=0) / max(1, counts.sum())
    of_rows = [np.stack(x)[:, : len(y)] for x, y in zip(values, order, strict=True)]
    ordered = np.concatenate(of_rows, axis=1)[:, np.argsort(np.concatenate(order))]
    return ordered[:, counts]


def _predictions(
    trained: TrainedPipeline,
    uncoded: Uncoded,
    patterns: Sequence[Pattern],
    stage_losses: str,
    rows: jax.Array,
    results: Results | None,
) -> Iterator[Prediction]:
    """Yields the predictions of a chunk under each pattern."""
    pipeline, predicted = trained.pipeline, {}
    sizes = {"n": pipeline.n, "stages": len(pipeline.stages)}
    if results is None:
        results = run_devices(*trained, uncoded.images)
    for lost in patterns:
        # All that lose no data result have the same predictions.
        loses_data = any(i < pipeline.k for i in lost)
        alike = stage_losses == "held" and pipeline.systematic and not loses_data
        group = () if alike else lost
        if group not in predicted:
            key = jax.random.key(DRAWN_FROM)
            masks = DRAWS[stage_losses](key, lost, rows=rows, **sizes)
            predicted[group] = decode_chunk(
                *trained,
                results=results,
                uncoded=uncoded,
                available=inference.of_pieces(pipeline, masks),
            )
        yield predicted[group]
