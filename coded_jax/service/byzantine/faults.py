"""Kinds of wrong results, which take the place of a right one."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from coded_jax.service.faults import corrupted

Fault = Callable[[jax.Array, jax.Array], jax.Array]
"""`(key, results [B, M, M', D] of one piece) -> wrong ones`, float32."""


def of_another_image(key: jax.Array, results: jax.Array) -> jax.Array:
    """Returns for each image the result of another one of the batch."""
    batch = len(results)
    steps = jax.random.randint(key, (batch,), 1, batch)
    return results[(jnp.arange(batch) + steps) % batch]


def noise(key: jax.Array, results: jax.Array) -> jax.Array:
    """Returns normal noise with the mean and the standard deviation that each channel
    of an image's result has over its positions."""
    mean = results.mean(axis=(1, 2), keepdims=True)
    deviation = results.std(axis=(1, 2), keepdims=True)
    return mean + deviation * jax.random.normal(key, results.shape)


def rectified_noise(key: jax.Array, results: jax.Array) -> jax.Array:
    """Returns `noise` with zeros for values below zero, as a ReLU gives them."""
    return jnp.maximum(noise(key, results), 0)


def lost_value(key: jax.Array, results: jax.Array) -> jax.Array:
    """Puts zero in the place of the largest value of each image."""
    flat = results.reshape(len(results), -1)
    places = jnp.abs(flat).argmax(axis=1)
    return flat.at[jnp.arange(len(flat)), places].set(0).reshape(results.shape)


def of_service(kind: str) -> Fault:
    """Returns a kind of `coded_jax.service.faults` that draws nothing."""

    def fault(key: jax.Array, results: jax.Array) -> jax.Array:
        share, rng = np.asarray(results), np.random.default_rng(0)
        return jnp.asarray(corrupted(kind, share, np.zeros_like(share), rng))

    return fault


FAULTS: dict[str, Fault] = {
    "another image's": of_another_image,
    "noise": noise,
    "top exponent bit": of_service("bit"),
    "zeros": of_service("zeros"),
    "rectified noise": rectified_noise,
    "a lost value": lost_value,
}
"""By name."""

STANDARD = (*FAULTS,)[:4]
"""Names of the kinds that a check has to find; the others show how much it owes to two
facts: that no right value is below zero, and which magnitudes there are."""
