"""The two things that are trained: the base model, and then a code around it."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from coded_jax import erasures, evaluation, placement, splitting
from coded_jax.data import Dataset, Split
from coded_jax.erasures import Pattern
from coded_jax.pipeline import (
    Pipeline,
    base_features,
    data_features,
    mask_axis,
    parity_features,
    reconstruct,
)
from coded_jax.placement import Spread
from coded_jax.training import Task
from coded_jax.types import PyTree

CACHE_BYTES = 4 << 30
"""Up to this size the data pieces' features are kept on each device."""

CHUNK = 500


def device_arrays(mesh: Mesh | None, split: Split) -> dict[str, jax.Array]:
    """`images` uint8 `[N, H, W, C]` and `labels` int32 `[N]`, whole on every device."""
    arrays = {"images": split.images, "labels": split.labels}
    return placement.put_everywhere(mesh, arrays)


def with_features(
    pipeline: Pipeline, frozen: PyTree, arrays: dict[str, jax.Array]
) -> dict[str, jax.Array]:
    """Adds what `f_conv`, being frozen, makes of the data pieces for good.

    Args:
      pipeline: the coded inference.
      frozen: variables of the base model.
      arrays: `images` uint8 `[N, H, W, C]`, and others that are returned as they are.

    Returns:
      With `features` `[N, k, M, M', D]` of the pipeline's dtype, but for features of
      more than `CACHE_BYTES`: then every step computes its own.
    """
    plan, total = pipeline.plan, len(arrays["images"])
    size = jnp.dtype(pipeline.dtype).itemsize * total * plan.k
    if size * math.prod(plan.share_shape) > CACHE_BYTES:
        return arrays
    chunks = [
        _features(pipeline, frozen, arrays["images"][start : start + CHUNK])
        for start in range(0, total, CHUNK)
    ]
    return {**arrays, "features": jnp.concatenate(chunks)}


@functools.partial(jax.jit, static_argnames="pipeline")
def _features(pipeline: Pipeline, frozen: PyTree, images: jax.Array) -> jax.Array:
    def local(spread: Spread, frozen: PyTree, images: jax.Array) -> jax.Array:
        return jnp.moveaxis(data_features(pipeline, frozen, images, spread), 0, 1)

    features = placement.over_batch(pipeline.mesh, local, (None, 0))
    return placement.everywhere(pipeline.mesh, features(frozen, images))


def base_losses(
    pipeline: Pipeline, variables: PyTree, batch: dict[str, jax.Array]
) -> jax.Array:
    """Cross-entropy `[B]` of the uncoded base model.

    Args:
      pipeline: whose base model is trained.
      variables: of the base model.
      batch: `images` uint8 `[B, H, W, C]` and `labels` int32 `[B]`.
    """

    def local(spread: Spread, variables: PyTree, batch: dict) -> jax.Array:
        features = base_features(pipeline, variables, batch["images"])
        logits = pipeline.base.head(variables, features.astype(jnp.float32))
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch["labels"])

    return placement.over_batch(pipeline.mesh, local, (None, 0))(variables, batch)


def coded_losses(
    pipeline: Pipeline,
    params: PyTree,
    frozen: PyTree,
    batch: dict[str, jax.Array],
    available: jax.Array,
) -> jax.Array:
    """Squared error `[B]` of the reconstructed features, their mean (section III-C).

    No gradient reaches `frozen`.

    Args:
      pipeline: the coded inference.
      params: of the code, to be trained.
      frozen: variables of the base model.
      batch: `images` uint8 `[B, H, W, C]`, and `features` if `with_features` has them.
      available: bool `[n, B]` or `[n, 1]`.
    """

    def local(spread: Spread, params, frozen, batch, available) -> jax.Array:
        images = batch["images"]
        if "features" in batch:
            data = jnp.moveaxis(batch["features"], 1, 0)
        else:
            data = data_features(pipeline, frozen, images, spread)
        target = splitting.merge(pipeline.plan, data).astype(jnp.float32)
        parity = parity_features(pipeline, frozen, params, images, spread)
        features = jnp.concatenate([data, parity])
        merged = reconstruct(pipeline, params, features, available)
        return jnp.square(merged - target).mean(axis=(1, 2, 3))

    frozen = jax.lax.stop_gradient(frozen)
    axes = (None, None, 0, mask_axis(available))
    losses = placement.over_batch(pipeline.mesh, local, axes)
    return losses(params, frozen, batch, available)


def base_task(
    pipeline: Pipeline, dataset: Dataset, optimizer: optax.GradientTransformation
) -> Task:
    """Trains the base model on the labels; scored by validation accuracy."""
    validation = device_arrays(pipeline.mesh, dataset.validation)

    def score(variables: PyTree) -> float:
        return evaluation.base_accuracy(pipeline, variables, validation)

    return Task(
        init=lambda key: pipeline.base.init(key, dataset.image_shape, dataset.classes),
        loss=lambda params, frozen, batch, key: base_losses(pipeline, params, batch),
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
) -> Task:
    """Trains the pipeline's code around the frozen base model.

    Args:
      pipeline: whose code is trained.
      frozen: variables of the base model.
      dataset: its validation part scores, by the mean accuracy over `patterns`.
      optimizer: for the code's parameters.
      most_lost: results lost in training, drawn per example from `0..most_lost`.
      patterns: erasure patterns to validate on.
    """
    validation = device_arrays(pipeline.mesh, dataset.validation)

    def loss(
        params: PyTree, frozen: PyTree, batch: dict[str, jax.Array], key: jax.Array
    ) -> jax.Array:
        size = len(batch["images"])
        available = erasures.sample(key, pipeline.n, most_lost, size)
        return coded_losses(pipeline, params, frozen, batch, available)

    def score(params: PyTree) -> float:
        found = evaluation.evaluate(pipeline, frozen, params, validation, patterns)
        return sum(outcome.accuracy for outcome in found) / len(found)

    return Task(pipeline.code.init, loss, score, optimizer)


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
