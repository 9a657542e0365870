"""Measures how much the logits feel an error of each feature map of a coded stage."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from coded_jax.inference.pipeline import Pipeline, inputs_of
from coded_jax.inference.stages import compute
from coded_jax.types import PyTree, State, apart, together

CHUNK = 250
LEAST = 0.01
"""Weights are no smaller, of a mean of 1: what these images do not show may matter."""


def sensitivities(
    pipeline: Pipeline, frozen: PyTree, images: np.ndarray, seed: int = 0
) -> tuple[np.ndarray, ...]:
    """Computes `E[(d logits / d z)^2]` of the exact outputs `z` of each coded stage.

    Errors of features that weigh so are to first order those of the logits, as packets
    of features are weighed by Grad-FEC (arXiv 2307.01846). The mean is over images,
    positions and logits; these are added up with random signs (Hutchinson 1990), so
    that one backward pass serves all.

    Args:
      pipeline: the coded inference.
      frozen: variables of the base model.
      images: `[N, H, W, C]`.
      seed: of the signs.

    Returns:
      For each coded stage float32 `[D]`, of mean 1.
    """
    sums: tuple[jax.Array, ...] | None = None
    for start in range(0, len(images), CHUNK):
        key = jax.random.fold_in(jax.random.key(seed), start)
        squares = _squares(pipeline, frozen, images[start : start + CHUNK], key)
        sums = jax.tree.map(jnp.add, sums, squares) if sums else squares
    scaled = [total / jnp.maximum(total.mean(), 1e-30) for total in sums or ()]
    floored = [jnp.maximum(weight, LEAST) for weight in scaled]
    # Of this process: a program may not close over arrays of several.
    return tuple(np.asarray(weight / weight.mean()) for weight in floored)


@functools.partial(jax.jit, static_argnums=0)
def _squares(
    pipeline: Pipeline, frozen: PyTree, images: jax.Array, key: jax.Array
) -> tuple[jax.Array, ...]:
    """Adds up the squares of the gradients of a chunk, `[D]` for each coded stage."""
    state: State = inputs_of(pipeline, images)
    sums = []
    for i, stage in enumerate(pipeline.stages):
        state = compute(stage, frozen, compute(stage.before, frozen, state))
        z, kept = apart(state)

        def logits(z: jax.Array, kept=kept, later=pipeline.stages[i + 1 :]):
            y = together(z, kept)
            for stage in later:
                y = compute(stage, frozen, compute(stage.before, frozen, y))
            features = compute(pipeline.after, frozen, y).astype(jnp.float32)
            return pipeline.base.head(frozen, features)

        answers, backward = jax.vjp(logits, z)
        signs = jax.random.rademacher(jax.random.fold_in(key, i), answers.shape, "f")
        # What all logits have in common changes no answer.
        (gradient,) = backward(signs - signs.mean(axis=-1, keepdims=True))
        sums.append(jnp.square(gradient.astype(jnp.float32)).sum(axis=(0, 1, 2)))
    return tuple(sums)
