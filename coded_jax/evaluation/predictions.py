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
from coded_jax.inference.pipeline import (
    Pipeline,
    Results,
    base_features,
    classify,
    from_decoder,
    has_answer,
    lost_answers,
    mask_axis,
    of_pieces,
    over_positions,
    per_stage,
    up_to_decoder,
)
from coded_jax.types import PyTree, are_values

CHUNK = 500
LABELS = 2**15
"""Labels of a chunk at most, of images with one for each position."""

DRAWN_FROM = 0
"""Seed of the draws, the same for every code, and every call."""

STAGE_LOSSES = ("held", "per_stage", "later")
"""Losses of several coded stages: a pattern holds in all of them; it holds in the
first, and every other one loses as many results, drawn anew; or it holds from one stage
on, which is drawn. Draws are made for every image."""


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

    @property
    def correct(self) -> jax.Array:
        """Returns the mask of correct predictions, bool."""
        return self.classes == self.labels


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
    lost = lost_answers(pipeline, per_stage(pipeline, available))
    return lost if pipeline.systematic else jnp.ones_like(lost)


class Rows(NamedTuple):
    """Some rows of a split.

    Attributes:
      images: `[B, H, W, C]`.
      labels: int32 `[B, ...]`, or values.
      weight: float32 for each label, 0 for rows past the end of the split and labels
        that do not count, else 1.
    """

    images: jax.Array
    labels: jax.Array
    weight: jax.Array


@functools.partial(jax.jit, static_argnames="size")
def take_rows(arrays: dict[str, jax.Array], start: jax.Array, size: int) -> Rows:
    """Takes `size` rows of a split from `start` on, repeating the last one at the end.

    It is a program of its own, so that larger ones do not depend on the split's size
    and are compiled once for validation and test images.
    """
    rows = start + jnp.arange(size)
    images = arrays["images"].at[rows].get(mode="clip")
    labels = arrays["labels"].at[rows].get(mode="clip")
    counts = counted(labels)
    exists = (rows < len(arrays["labels"])).reshape(-1, *[1] * (counts.ndim - 1))
    weight = jnp.where(exists & counts, jnp.float32(1), jnp.float32(0))
    return Rows(images, labels, weight)


class Uncoded(NamedTuple):
    """Rows of a split, and what the base model alone computes of them.

    Attributes:
      rows: of the split.
      target: float32 `[B, M*, M'*, D]`, what the head is given without losses.
      expected: int32 of the labels' shape, see `classes_of`; or values.
    """

    rows: Rows
    target: jax.Array
    expected: jax.Array


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
    values = are_values(arrays["labels"])
    for start in range(0, total, size):
        rows = take_rows(arrays, np.int32(start), size)
        yield Uncoded(rows, *run_uncoded(pipeline, frozen, rows.images, values))


def run_uncoded(
    pipeline: Pipeline, frozen: PyTree, images: jax.Array, values: bool = False
) -> tuple[jax.Array, jax.Array]:
    """Computes the base model's features, float32, and its classes, see `classes_of`,
    or its values.

    It is one program for all codes around a base model.
    """
    any_code = pipeline.with_codes(lambda shape, code: None)  # type: ignore
    return _run_uncoded(any_code, frozen, images, values)


@functools.partial(jax.jit, static_argnames=("pipeline", "values"))
def _run_uncoded(
    pipeline: Pipeline, frozen: PyTree, images: jax.Array, values: bool
) -> tuple[jax.Array, jax.Array]:
    """Computes `run_uncoded`, each device on its part of the batch."""

    def compute_part(spread: PieceMap, frozen: PyTree, images: jax.Array) -> tuple:
        features = base_features(pipeline, frozen, images).astype(jnp.float32)
        answers = pipeline.base.head(frozen, features)
        return features, answers if values else classes_of(answers)

    compute = placement.data_parallel(pipeline.mesh, compute_part, (None, 0), (0, 0))
    return compute(frozen, images)


@functools.partial(jax.jit, static_argnames="pipeline")
def run_devices(
    pipeline: Pipeline, frozen: PyTree, params: PyTree, images: jax.Array
) -> Results:
    """Computes the n results of the first coded stage."""

    def compute_part(spread: PieceMap, frozen, params, images) -> Results:
        return up_to_decoder(pipeline, frozen, params, images, spread=spread)

    axes = (None, None, 0), Results(1, 0)  # type: ignore
    compute = placement.data_parallel(pipeline.mesh, compute_part, *axes)
    return compute(frozen, params, images)


@functools.partial(jax.jit, static_argnames="pipeline")
def decode_chunk(
    pipeline: Pipeline,
    frozen: PyTree,
    params: PyTree,
    results: Results,
    uncoded: Uncoded,
    available: jax.Array,
) -> Prediction:
    """Predicts a chunk under one pattern, from the n results of its rows."""

    def decode_part(
        spread: PieceMap, frozen, params, available, features, kept, target
    ) -> tuple[jax.Array, jax.Array]:
        results = Results(features, kept)
        x = from_decoder(
            pipeline, frozen, params, results, available, spread=spread, shortened=True
        )
        merged, logits = classify(pipeline, frozen, params, x, available)
        error = jnp.square(merged - target).mean(axis=(1, 2, 3))
        answered = has_answer(pipeline, available)
        answered = answered.reshape(len(answered), -1).all(axis=1)
        return logits, jnp.where(answered, error, jnp.nan)

    axes = (None, None, mask_axis(available), 1, 0, 0)
    compute = placement.data_parallel(pipeline.mesh, decode_part, axes)
    logits, error = compute(frozen, params, available, *results, uncoded.target)
    _, labels, weight = uncoded.rows
    shape = weight.shape
    error = jnp.broadcast_to(error.reshape(-1, *[1] * (len(shape) - 1)), shape)
    by_decoder = over_positions(decoded(pipeline, available), len(shape))
    by_decoder = jnp.broadcast_to(by_decoder, shape)
    return Prediction(logits, uncoded.expected, labels, error, by_decoder, weight)


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
        counted = jnp.where(prediction.weight[..., None] > 0, values, 0)
        values = counted.sum(axis=tuple(range(prediction.weight.ndim)))
    return placement.replicated(mesh, values)


_DRAWS = {
    "per_stage": erasures.drawn_in_stages,
    "later": erasures.begin_in_stages,
}


def measure(
    pipeline: Pipeline,
    frozen: PyTree,
    params: PyTree,
    arrays: dict[str, jax.Array],
    patterns: Sequence[Pattern],
    statistic: Statistic,
    *,
    parameters: ArrayLike | None = None,
    per_image: bool = False,
    stage_losses: str = "held",
    first_row: int = 0,
    uncoded: Iterable[Uncoded] | None = None,
) -> np.ndarray:
    """Computes a statistic of the predictions for every pattern on every image.

    The n results of the first coded stage are computed once for each image, and so are
    the predictions for all patterns that lose no data result of a systematic code. One
    compilation serves all patterns, splits and statistics; one for each stage, where
    losses may begin in any.

    Args:
      pipeline: the coded inference.
      frozen: variables of the base model.
      params: parameters of the code.
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

    Returns:
      `[P, Q]`, means over the labels that count; or `[P, N', Q]`, the values of the N'
      labels that count.
    """
    if stage_losses == "later" and pipeline.whole_unless_lost:
        settings = {"parameters": parameters, "per_image": per_image}
        inputs = (pipeline, frozen, params, arrays, patterns, statistic)
        return _measure_by_begin(*inputs, first_row, **settings)
    sizes = (pipeline.n, len(pipeline.stages))
    held = [of_pieces(pipeline, erasures.in_stages(p, *sizes)) for p in patterns]
    if parameters is None:
        parameters = np.zeros(len(patterns))
    of_pattern = jnp.asarray(parameters, jnp.float32)

    def masks_of(rows: jax.Array) -> list[jax.Array]:
        if stage_losses == "held":
            return held
        draw = functools.partial(_DRAWS[stage_losses], jax.random.key(DRAWN_FROM))
        return [of_pieces(pipeline, draw(p, *sizes, rows)) for p in patterns]

    options = {"mesh": pipeline.mesh, "statistic": statistic, "per_image": per_image}
    # Numbers of groups of patterns that have the same predictions.
    harmless = [stage_losses == "held" and _is_harmless(pipeline, m) for m in held]
    groups = [-1 if same else number for number, same in enumerate(harmless)]
    inputs, chunks = (pipeline, frozen, params), []
    for known in uncoded or uncoded_chunks(pipeline, frozen, arrays):
        size = len(known.expected)
        results = run_devices(*inputs, known.rows.images)
        masks = masks_of(first_row + jnp.arange(size))
        first_row += size
        of_chunk, predicted = [], {}
        for group, mask, parameter in zip(groups, masks, of_pattern, strict=True):
            if group not in predicted:
                predicted[group] = decode_chunk(*inputs, results, known, mask)
            of_chunk.append(_summarise(predicted[group], parameter, **options))
        chunks.append(of_chunk)
    # Fetched once, after everything has been dispatched.
    values = jax.device_get(chunks)
    counts = counted(np.asarray(arrays["labels"]))
    if not per_image:
        return np.asarray(values, np.float64).sum(axis=0) / max(1, counts.sum())
    rows = np.concatenate([np.stack(chunk) for chunk in values], axis=1)
    return rows[:, : len(counts)][:, counts]


def _is_harmless(pipeline: Pipeline, mask: jax.Array) -> bool:
    """Returns whether no answer depends on the losses of a mask `[S, n, 1]`."""
    return pipeline.systematic and bool(mask[:, : pipeline.k].all())


def _measure_by_begin(
    pipeline: Pipeline,
    frozen: PyTree,
    params: PyTree,
    arrays: dict[str, jax.Array],
    patterns: Sequence[Pattern],
    statistic: Statistic,
    first_row: int,
    *,
    parameters: ArrayLike | None,
    per_image: bool,
) -> np.ndarray:
    """Measures patterns that hold from a stage on, which is drawn for each image.

    Images whose losses begin in the same stage are measured together: the stages before
    are computed whole for them. Arguments and result are those of `measure`.
    """
    stages, total = len(pipeline.stages), len(arrays["labels"])
    key = jax.random.key(DRAWN_FROM)
    begins = erasures.beginnings(key, stages, first_row + jnp.arange(total))
    counts = counted(np.asarray(arrays["labels"]))
    image = np.arange(total).reshape(-1, *[1] * (counts.ndim - 1))
    images = np.broadcast_to(image, counts.shape)
    # The same for groups of any number of rows, of which few are then repeated.
    size = min(CHUNK, LABELS // counts[0].size or 1, -(-total // (8 * stages)))
    values, order = [], []
    for begin in range(stages):
        chosen = np.flatnonzero(np.asarray(begins) == begin)
        own_counts = counts[chosen]
        if not own_counts.any():
            continue
        own = {name: array[chosen] for name, array in arrays.items()}
        inputs = (pipeline.begun_at(begin), frozen, params[begin:], own, patterns)
        known = uncoded_chunks(pipeline, frozen, own, size)
        settings = {"parameters": parameters, "uncoded": known, "per_image": per_image}
        of_group = measure(*inputs, statistic, **settings)
        values.append(of_group if per_image else own_counts.sum() * of_group)
        order.append(images[chosen][own_counts])
    if not per_image:
        return sum(values) / max(1, counts.sum())
    in_order = np.argsort(np.concatenate(order), kind="stable")
    return np.concatenate(values, axis=1)[:, in_order]
