"""Inspection of losses: feature maps of the stages, and the answers that they spoil."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from coded_jax import splitting
from coded_jax.checks import require
from coded_jax.codes import erasures
from coded_jax.codes.quorum import sent
from coded_jax.devices import placement
from coded_jax.evaluation import predictions
from coded_jax.evaluation.predictions import Prediction, TrainedPipeline
from coded_jax.inference import pipeline as inference
from coded_jax.inference import stages
from coded_jax.inference.pipeline import Pipeline
from coded_jax.types import PyTree, Split, apart, are_values


class StageMaps(NamedTuple):
    """Feature maps of one coded stage.

    Attributes:
      original: float32 `[B, M*, M'*, D]`, of the uncoded base model.
      arrived: float32 `[B, M*, M'*, D]`, the data pieces' results, NaN where lost.
      parity: float32 `[r, B, M, M', D]`, the parity pieces' results, NaN where lost;
        `[0, ...]` of a code that makes none.
      reconstructed: float32 `[B, M*, M'*, D]`, the stage's decoded output.
    """

    original: np.ndarray
    arrived: np.ndarray
    parity: np.ndarray
    reconstructed: np.ndarray


def feature_maps(
    trained: TrainedPipeline, images: jax.Array, lost: Iterable[int]
) -> list[StageMaps]:
    """Computes the feature maps of every coded stage, each with the same losses.

    Args:
      trained: the coded inference and its variables.
      images: `[B, H, W, C]` of the pipeline's `image_dtype`.
      lost: the lost results, ascending.

    Raises:
      ValueError: there are no such results, or groups of images are coded, whose shares
        are logits.
    """
    pipeline = trained.pipeline
    if pipeline.examples.grouped:
        raise ValueError(
            "split: 'group' given, 'image' accepted: what devices return of groups is "
            "logits, not feature maps"
        )
    available = jnp.asarray(erasures.available(lost, pipeline.n))
    return jax.device_get(_maps(*trained, images=images, available=available))


@functools.partial(jax.jit, static_argnums=0)
def _maps(
    pipeline: Pipeline,
    frozen: PyTree,
    params: PyTree,
    images: jax.Array,
    available: jax.Array,
) -> list[StageMaps]:
    k, maps, state = pipeline.k, [], inference.inputs_of(pipeline, images)
    exact = inference.exact_outputs(pipeline, frozen, images)
    arrived = inference.per_stage(pipeline, available)
    arrived = inference.of_pieces(pipeline, arrived)
    for i, stage in enumerate(pipeline.stages):
        sent_to = stages.begin_stage(stage, frozen, params[i], state)
        results = stages.stage_results(stage, frozen, params[i], sent_to.queries)
        state = stages.end_stage(stage, params[i], results, arrived[i], sent_to.kept)
        seen = jnp.where(arrived[i][..., None, None, None], results, jnp.nan)
        seen = stages.shares_of(stage, seen)
        parity = seen[k : sent(stage.code.quorum, k, pipeline.n).stop]
        merged = splitting.merge(stage.plan, seen[:k])
        of_stage = StageMaps(exact[i], merged, parity, apart(state)[0])
        maps.append(jax.tree.map(lambda x: x.astype(jnp.float32), of_stage))
    return maps


def side_by_side(
    maps: StageMaps, channels: int
) -> tuple[list[int], dict[str, np.ndarray]]:
    """Selects channels of all maps and scales them to be looked at together.

    A channel has one scale in all maps, its range in the original, and in those of each
    parity piece a scale of its own, since mixtures have values of another size.

    Args:
      maps: of one stage.
      channels: how many, of those that differ most between positions and images.

    Returns:
      Their numbers, and float32 `[B, ..., channels]` by name, in `[0, 1]` where they do
      not exceed the original, NaN where lost.
    """
    shown = np.argsort(-maps.original.var(axis=(0, 1, 2)), kind="stable")[:channels]
    picked = StageMaps(*(values[..., shown] for values in maps))
    low, size = _range(picked.original)
    columns = {
        "original": (picked.original - low) / size,
        "arrived": (picked.arrived - low) / size,
    }
    for i, parity in enumerate(picked.parity):
        least, most = _range(np.nan_to_num(parity))
        columns[f"parity {i}"] = (parity - least) / most
    columns["reconstructed"] = (picked.reconstructed - low) / size
    columns["difference"] = np.abs(picked.reconstructed - picked.original) / size
    return shown.tolist(), columns


def _range(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns each channel's least value and its range, or 1 for a range of 0."""
    flat = values.reshape(-1, values.shape[-1])
    size = np.ptp(flat, axis=0)
    return flat.min(axis=0), np.where(size > 0, size, 1)


class Confusion(NamedTuple):
    """Answers that losses change, counted over a split.

    Attributes:
      spoiled: int `[classes, classes + 1]`, of images, or positions, that the base
        model classifies correctly: how many of each class are given each other one; the
        last column counts those without an answer.
      mended: how many the base model alone classifies wrongly.
      images: how many images, or positions that count, there are.
    """

    spoiled: np.ndarray
    mended: int
    images: int


def confusion(
    trained: TrainedPipeline,
    split: Split,
    lost: Iterable[int],
    *,
    classes: int,
    stage_losses: str = "held",
) -> Confusion:
    """Compares the answers from what arrived with those of the base model.

    Args:
      trained: the coded inference and its variables.
      split: inputs and labels of the pipeline, see `data.groups` for groups of images.
      lost: the lost results, ascending.
      classes: of the data set.
      stage_losses: see `predictions.STAGE_LOSSES`.

    Raises:
      ValueError: there are no such results, or labels are values.
    """
    pattern = erasures.pattern_of(lost, trained.pipeline.n)
    accepted = "classes, which can be confused"
    require("split.labels", "values", not are_values(split.labels), accepted)
    arrays = {"images": split.images, "labels": split.labels}
    arrays = placement.put_replicated(trained.pipeline.mesh, arrays)
    settings = {"per_image": True, "stage_losses": stage_losses}
    (rows,) = predictions.measure(trained, arrays, [pattern], _answers, **settings)
    answer, expected, label = rows.astype(int).T
    spoiled = np.zeros((classes, classes + 1), int)
    wrong = (expected == label) & (answer != label)
    np.add.at(spoiled, (label[wrong], answer[wrong]), 1)  # -1 is the last column
    mended = int(((expected != label) & (answer == label)).sum())
    return Confusion(spoiled, mended, len(label))


def _answers(prediction: Prediction, _: jax.Array) -> jax.Array:
    """Returns `[..., 3]`: the class answered, the base model's, and the true one."""
    classes = (prediction.classes, prediction.expected, prediction.labels)
    return jnp.stack(classes, axis=-1)
