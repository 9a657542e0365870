"""Kinds of wrong results, which take the place of a right one."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

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


def flipped_bit(key: jax.Array, results: jax.Array) -> jax.Array:
    """Flips the top bit of the exponent of the largest value of each image."""

    def flip(values: jax.Array) -> jax.Array:
        bits = jax.lax.bitcast_convert_type(values.astype(jnp.float32), jnp.uint32)
        return jax.lax.bitcast_convert_type(bits ^ jnp.uint32(1 << 30), jnp.float32)

    return _with_largest(results, flip)


def lost_value(key: jax.Array, results: jax.Array) -> jax.Array:
    """Puts zero in the place of the largest value of each image."""
    return _with_largest(results, jnp.zeros_like)


def zeros(key: jax.Array, results: jax.Array) -> jax.Array:
    """Returns zeros."""
    return jnp.zeros_like(results)


def _with_largest(
    results: jax.Array, change: Callable[[jax.Array], jax.Array]
) -> jax.Array:
    """Changes the value of the largest magnitude of each image."""
    flat = results.reshape(len(results), -1)
    places = jnp.abs(flat).argmax(axis=1)
    rows = jnp.arange(len(flat))
    return flat.at[rows, places].set(change(flat[rows, places])).reshape(results.shape)


FAULTS: dict[str, Fault] = {
    "another image's": of_another_image,
    "noise": noise,
    "top exponent bit": flipped_bit,
    "zeros": zeros,
    "rectified noise": rectified_noise,
    "a lost value": lost_value,
}
"""By name."""

STANDARD = (*FAULTS,)[:4]
"""Names of the kinds that a check has to find; the others show how much it owes to two
facts: that no right value is below zero, and which magnitudes there are."""
