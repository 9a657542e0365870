"""The two things that are trained: the base model, and then a code around it."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
import optax
from jax.sharding import Mesh

from coded_jax.codes import erasures
from coded_jax.codes.erasures import Pattern
from coded_jax.data import groups
from coded_jax.data.augmentation import augment
from coded_jax.devices import placement
from coded_jax.evaluation import pattern_accuracy
from coded_jax.inference.pipeline import Pipeline
from coded_jax.training.loop import BY_LOST, SCORE, Task
from coded_jax.training.losses import base_losses, coded_losses
from coded_jax.types import Dataset, PyTree, Split

MOST_VALIDATED = 30_000
"""Images times patterns that an epoch is scored on, at most."""

STAGE_TRAININGS = ("end_to_end", "per_stage")


def device_arrays(mesh: Mesh | None, split: Split) -> dict[str, jax.Array]:
    """`images` uint8 `[N, H, W, C]` and `labels` int32 `[N]`, whole on every device."""
    arrays = {"images": split.images, "labels": split.labels}
    return placement.put_everywhere(mesh, arrays)


def base_task(
    pipeline: Pipeline,
    dataset: Dataset,
    optimizer: optax.GradientTransformation,
    augmentation: str = "none",
    label_smoothing: float = 0.0,
) -> Task:
    """Trains the base model on the labels; scored by validation accuracy.

    Args:
      pipeline: whose base model is trained.
      dataset: its validation part scores.
      optimizer: for the variables.
      augmentation: of the training images, see `augmentation.augment`.
      label_smoothing: see `base_losses`.
    """
    validation = device_arrays(pipeline.mesh, dataset.validation)

    def score(variables: PyTree) -> dict[str, float]:
        return {SCORE: pattern_accuracy.base_accuracy(pipeline, variables, validation)}

    def loss(
        params: PyTree, frozen: PyTree, batch: dict[str, jax.Array], key: jax.Array
    ) -> tuple[jax.Array, PyTree]:
        batch = {**batch, "images": augment(key, batch["images"], augmentation)}
        return base_losses(pipeline, params, batch, label_smoothing)

    return Task(
        init=lambda key: pipeline.base.init(key, dataset.image_shape, dataset.classes),
        loss=loss,
        score=score,
        optimizer=optimizer,
    )


def code_task(
    pipeline: Pipeline,
    frozen: PyTree,
    dataset: Dataset,
    optimizer: optax.GradientTransformation,
    most_lost: int,
    patterns: list[Pattern],
    stage_training: str = "end_to_end",
    stage_losses: str = "held",
    distillation: float = 0.0,
    augmentation: str = "none",
    supervision: float = 0.0,
    draws: str = "counts",
    pattern_weights: Mapping[Pattern, float] | None = None,
) -> Task:
    """Trains the pipeline's codes around the frozen base model.

    Args:
      pipeline: whose code is trained.
      frozen: variables of the base model.
      dataset: its validation part scores, by the mean accuracy over `patterns`; of many
        patterns, on its first `MOST_VALIDATED / patterns` images.
      optimizer: for the codes' parameters.
      most_lost: results lost in training, at most, drawn per example: by
        `erasures.sample_harmful` for systematic codes, else by `erasures.sample`.
      patterns: erasure patterns to validate on.
      stage_training: `"end_to_end"` or `"per_stage"`, see `coded_losses`.
      stage_losses: whether what is lost is `"held"` for all stages or drawn
        `"per_stage"`, in training as in the validation.
      distillation, supervision: see `coded_losses`.
      augmentation: of the training images, see `augmentation.augment`; the training
        arrays must have no targets then.
      draws, pattern_weights: see `erasures.sample_harmful`.
    """
    images = max(1, MOST_VALIDATED // len(patterns))
    validation = {
        name: array[:images]
        for name, array in device_arrays(pipeline.mesh, dataset.validation).items()
    }

    def loss(
        params: PyTree, frozen: PyTree, batch: dict[str, Any], key: jax.Array
    ) -> tuple[jax.Array, PyTree]:
        k, n, size = pipeline.k, pipeline.n, len(batch["images"])
        if augmentation != "none":
            change_key, key = jax.random.split(key)
            images = groups.each_image(
                functools.partial(augment, change_key, kind=augmentation),
                batch["images"],
                pipeline.group,
            )
            batch = {**batch, "images": images}
        if pipeline.group > 1:  # other images together in every epoch
            mix_key, key = jax.random.split(key)
            batch = groups.regroup(mix_key, batch, pipeline.group)

        def draw(key: jax.Array) -> jax.Array:
            if pipeline.systematic and most_lost:
                return erasures.sample_harmful(
                    key, k, n, most_lost, size, draws, pattern_weights
                )
            return erasures.sample(key, n, most_lost, size)

        if stage_losses == "per_stage":
            available = jax.vmap(draw)(jax.random.split(key, len(pipeline.codings)))
        else:
            available = draw(key)
        losses = coded_losses(
            pipeline,
            params,
            frozen,
            batch,
            available,
            stage_training == "end_to_end",
            distillation,
            supervision,
        )
        return losses, {}

    def score(params: PyTree) -> dict[str, float]:
        found = pattern_accuracy.evaluate(
            pipeline, frozen, params, validation, patterns, stage_losses
        )
        by_lost = pattern_accuracy.summarise([found]).items()
        return {
            SCORE: sum(outcome.accuracy for outcome in found) / len(found),
            **{BY_LOST.format(l): summary["mean"] for l, summary in by_lost},
        }

    return Task(pipeline.init, loss, score, optimizer)


def adam(
    learning_rate: float | optax.Schedule, weight_decay: float
) -> optax.GradientTransformation:
    """Adam with L2: the decay is added to the gradient, not decoupled (section IV-A).

    Args:
      learning_rate: constant, or of every step.
      weight_decay: the L2 factor.
    """
    decay = optax.add_decayed_weights(weight_decay)
    return optax.chain(decay, optax.adam(learning_rate))
