"""The two things that are trained: the base model, and then a code around it."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from coded_jax import erasures, evaluation, placement, splitting
from coded_jax.augmentation import augment
from coded_jax.data import Dataset, Split
from coded_jax.erasures import Pattern
from coded_jax.pipeline import (
    Pipeline,
    base_features,
    coded_features,
    compute,
    mask_axis,
    parity_features,
    per_stage,
    pixels,
    reconstruct,
)
from coded_jax.placement import Spread
from coded_jax.training import Task
from coded_jax.types import PyTree

CACHE_BYTES = 4 << 30
"""Up to this size the exact outputs of the coded stages are kept on each device."""

CHUNK = 500

MOST_VALIDATED = 30_000
"""Images times patterns that an epoch is scored on, at most."""

STAGE_TRAININGS = ("end_to_end", "per_stage")


def device_arrays(mesh: Mesh | None, split: Split) -> dict[str, jax.Array]:
    """`images` uint8 `[N, H, W, C]` and `labels` int32 `[N]`, whole on every device."""
    arrays = {"images": split.images, "labels": split.labels}
    return placement.put_everywhere(mesh, arrays)


def with_targets(
    pipeline: Pipeline, frozen: PyTree, arrays: dict[str, jax.Array]
) -> dict[str, Any]:
    """Adds what the frozen base model makes of the images, for good.

    Args:
      pipeline: the coded inference.
      frozen: variables of the base model.
      arrays: `images` uint8 `[N, H, W, C]`, and others that are returned as they are.

    Returns:
      With `targets`, a tuple of the `[N, M*, M'*, D]` that are the exact outputs of the
      coded stages, of the pipeline's dtype; but without them if they have more than
      `CACHE_BYTES`: then every step computes its own.
    """
    total = len(arrays["images"])
    values = sum(
        plan.rows.out * plan.columns.out * plan.feature_channels
        for plan, _ in pipeline.codings
    )
    if jnp.dtype(pipeline.dtype).itemsize * total * values > CACHE_BYTES:
        return arrays
    chunks = [
        _targets_of(pipeline, frozen, arrays["images"][start : start + CHUNK])
        for start in range(0, total, CHUNK)
    ]
    return {**arrays, "targets": jax.tree.map(lambda *c: jnp.concatenate(c), *chunks)}


@functools.partial(jax.jit, static_argnames="pipeline")
def _targets_of(
    pipeline: Pipeline, frozen: PyTree, images: jax.Array
) -> tuple[jax.Array, ...]:
    def local(spread: Spread, frozen: PyTree, images: jax.Array) -> tuple:
        return _targets(pipeline, frozen, images)

    targets = placement.over_batch(pipeline.mesh, local, (None, 0))
    return placement.everywhere(pipeline.mesh, targets(frozen, images))


def _targets(
    pipeline: Pipeline, frozen: PyTree, images: jax.Array
) -> tuple[jax.Array, ...]:
    """Exact outputs `[B, M*, M'*, D]` of the coded stages."""
    x, targets = pixels(pipeline, images), []
    for stage in pipeline.stages:
        x = compute(pipeline, stage, frozen, x)
        if stage.coding:
            targets.append(x)
    return tuple(targets)


def base_losses(
    pipeline: Pipeline,
    variables: PyTree,
    batch: dict[str, jax.Array],
    label_smoothing: float = 0.0,
) -> tuple[jax.Array, PyTree]:
    """Cross-entropy `[B]` of the uncoded base model, and the variables that it moves.

    Args:
      pipeline: whose base model is trained.
      variables: of the base model.
      batch: `images` uint8 `[B, H, W, C]` and `labels` int32 `[B]`.
      label_smoothing: this share of the labels' weight goes to all classes alike.
    """
    train, mesh = pipeline.base.train, pipeline.mesh

    def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
        targets = jax.nn.one_hot(labels, logits.shape[-1])
        targets = optax.smooth_labels(targets, label_smoothing)
        return optax.softmax_cross_entropy(logits.astype(jnp.float32), targets)

    def local(spread: Spread, variables: PyTree, batch: dict) -> jax.Array:
        features = base_features(pipeline, variables, batch["images"])
        logits = pipeline.base.head(variables, features.astype(jnp.float32))
        return cross_entropy(logits, batch["labels"])

    if train is None:
        return placement.over_batch(mesh, local, (None, 0))(variables, batch), {}
    # Not example by example: a batch norm needs the statistics of the whole batch.
    batch = placement.divided(mesh, batch)
    logits, moved = train(variables, pixels(pipeline, batch["images"]))
    return cross_entropy(logits, batch["labels"]), moved


def coded_losses(
    pipeline: Pipeline,
    params: PyTree,
    frozen: PyTree,
    batch: dict[str, Any],
    available: jax.Array,
    end_to_end: bool = True,
) -> jax.Array:
    """Squared error `[B]` of the reconstructed features, their mean (section III-C).

    With several coded stages it is the sum of their errors, each over the mean square
    of what the stage should have put out. No gradient reaches `frozen`.

    Args:
      pipeline: the coded inference.
      params: of the codes, to be trained.
      frozen: variables of the base model.
      batch: `images` uint8 `[B, H, W, C]`, and `targets` if `with_targets` has them.
      available: bool `[n, B]` or `[n, 1]`, or `[S, n, ...]` for each stage its own.
      end_to_end: whether a stage is given what the stages before it reconstructed, or
        else what they should have.
    """

    def local(spread: Spread, params, frozen, batch, available) -> tuple:
        x, coded = pixels(pipeline, batch["images"]), 0
        errors, squares = [], []
        exact = True  # whether x is what it is without any loss
        targets = batch.get("targets") or _targets(pipeline, frozen, batch["images"])
        for stage in pipeline.stages:
            if not stage.coding:
                x = compute(pipeline, stage, frozen, x)
                continue
            inputs = (pipeline, stage, frozen, params[coded], x, spread)
            if exact:
                data = splitting.shares(stage.coding.plan, targets[coded])
                features = jnp.concatenate([data, parity_features(*inputs)])
            else:
                features = coded_features(*inputs)
            merged = reconstruct(
                pipeline, stage, params[coded], features, available[coded]
            )
            target = targets[coded].astype(jnp.float32)
            errors.append(jnp.square(merged - target).mean(axis=(1, 2, 3)))
            squares.append(jnp.square(target).mean(axis=(1, 2, 3)))
            x, exact = (merged, False) if end_to_end else (targets[coded], True)
            coded += 1
        return jnp.stack(errors), jnp.stack(squares)

    frozen = jax.lax.stop_gradient(frozen)
    available = per_stage(pipeline, available)
    axes = (None, None, 0, mask_axis(available))
    compare = placement.over_batch(pipeline.mesh, local, axes, 1)
    errors, squares = compare(params, frozen, batch, available)
    if len(pipeline.codings) == 1:
        return errors[0]
    # Here, since the mean is that of the whole batch, not of a device's part of it.
    return (errors / squares.mean(axis=1, keepdims=True)).sum(axis=0)


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

    def score(variables: PyTree) -> float:
        return evaluation.base_accuracy(pipeline, variables, validation)

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

        def draw(key: jax.Array) -> jax.Array:
            if pipeline.systematic and most_lost:
                return erasures.sample_harmful(key, k, n, most_lost, size)
            return erasures.sample(key, n, most_lost, size)

        if stage_losses == "per_stage":
            available = jax.vmap(draw)(jax.random.split(key, len(pipeline.codings)))
        else:
            available = draw(key)
        end_to_end = stage_training == "end_to_end"
        return coded_losses(pipeline, params, frozen, batch, available, end_to_end), {}

    def score(params: PyTree) -> float:
        found = evaluation.evaluate(
            pipeline, frozen, params, validation, patterns, stage_losses
        )
        return sum(outcome.accuracy for outcome in found) / len(found)

    return Task(pipeline.init, loss, score, optimizer)


def adam(
    learning_rate: float, weight_decay: float, decay_steps: int | None = None
) -> optax.GradientTransformation:
    """Adam with L2: the decay is added to the gradient, not decoupled (section IV-A).

    Args:
      learning_rate: constant, or the first of a cosine decay to zero.
      weight_decay: the L2 factor.
      decay_steps: length of the cosine decay; constant if None.
    """
    rate = (
        optax.cosine_decay_schedule(learning_rate, decay_steps)
        if decay_steps
        else learning_rate
    )
    return optax.chain(optax.add_decayed_weights(weight_decay), optax.adam(rate))
