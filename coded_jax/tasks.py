"""The two things that are trained: the base model, and then a code around it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from coded_jax import erasures, evaluation
from coded_jax.data import Dataset, Split
from coded_jax.erasures import Pattern
from coded_jax.pipeline import Pipeline, base_features, coded_features, reconstruct
from coded_jax.training import Task
from coded_jax.types import PyTree


def device_arrays(split: Split) -> dict[str, jax.Array]:
    """`images` uint8 `[N, H, W, C]` and `labels` int32 `[N]` on the device."""
    return {"images": jnp.asarray(split.images), "labels": jnp.asarray(split.labels)}


def base_loss(
    pipeline: Pipeline, variables: PyTree, batch: dict[str, jax.Array]
) -> jax.Array:
    """Mean cross-entropy of the uncoded base model.

    Args:
      pipeline: whose base model is trained.
      variables: of the base model.
      batch: `images` uint8 `[B, H, W, C]` and `labels` int32 `[B]`.
    """
    features = base_features(pipeline, variables, batch["images"])
    logits = pipeline.base.head(variables, features)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["labels"])
    return losses.mean()


def coded_loss(
    pipeline: Pipeline,
    params: PyTree,
    frozen: PyTree,
    images: jax.Array,
    available: jax.Array,
) -> jax.Array:
    """Mean squared error of the reconstructed features (section III-C).

    No gradient reaches `frozen`.

    Args:
      pipeline: the coded inference.
      params: of the code, to be trained.
      frozen: variables of the base model.
      images: uint8 `[B, H, W, C]`.
      available: bool `[n, B]` or `[n, 1]`.
    """
    frozen = jax.lax.stop_gradient(frozen)
    target = base_features(pipeline, frozen, images)
    features = coded_features(pipeline, frozen, params, images)
    merged = reconstruct(pipeline, params, features, available)
    return jnp.square(merged - target).mean()


def base_task(
    pipeline: Pipeline, dataset: Dataset, optimizer: optax.GradientTransformation
) -> Task:
    """Trains the base model on the labels; scored by validation accuracy."""
    validation = device_arrays(dataset.validation)

    def score(variables: PyTree) -> float:
        return evaluation.base_accuracy(pipeline, variables, validation)

    return Task(
        init=lambda key: pipeline.base.init(key, dataset.image_shape, dataset.classes),
        loss=lambda params, frozen, batch, key: base_loss(pipeline, params, batch),
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
    validation = device_arrays(dataset.validation)

    def loss(
        params: PyTree, frozen: PyTree, batch: dict[str, jax.Array], key: jax.Array
    ) -> jax.Array:
        images = batch["images"]
        available = erasures.sample(key, pipeline.n, most_lost, len(images))
        return coded_loss(pipeline, params, frozen, images, available)

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
