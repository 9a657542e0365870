"""Batch norm whose training keeps its input alone for the backward pass.

Flax's own keeps the input, the input less its mean, and their products. Here the
gradient is written out, of Ioffe and Szegedy 2015: with `N` values of a channel in the
batch, `z = (x - mean) / sqrt(var + epsilon)` and the gradient `g` of the outputs,

    dx = scale / sqrt(var + epsilon) (g - sum(g) / N - z sum(g z) / N)

whose sums are one pass over `g` and `x`, and the rest another.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

MOMENTUM, EPSILON = 0.9, 1e-5
POSITIONS = (0, 1, 2)  # batch, rows, columns

Statistics = tuple[jax.Array, jax.Array]


class BatchNorm(nn.Module):
    """Normalises channels, with the variables of `nn.BatchNorm`.

    Attributes:
      channels: their number, C.
    """

    channels: int

    def setup(self) -> None:
        """Declares the variables."""
        shape = (self.channels,)
        self.mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        self.var = self.variable("batch_stats", "var", jnp.ones, shape)
        self.scale = self.param("scale", nn.initializers.ones, shape)
        self.bias = self.param("bias", nn.initializers.zeros, shape)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalises `[B, h, w, C]` by the batch; updates the running statistics."""
        y, now = normalise(x, self.scale, self.bias)
        if not self.is_initializing():
            for running, value in zip((self.mean, self.var), now, strict=True):
                running.value = MOMENTUM * running.value + (1 - MOMENTUM) * value
        return y

    def affine(self) -> tuple[jax.Array, jax.Array]:
        """Returns factor and summand of each channel, `[C]`, by running statistics."""
        factor = jax.lax.rsqrt(self.var.value + EPSILON) * self.scale
        return factor, self.bias - self.mean.value * factor


@jax.custom_vjp
def normalise(
    x: jax.Array, scale: jax.Array, bias: jax.Array
) -> tuple[jax.Array, Statistics]:
    """Normalises by the statistics of the batch.

    Args:
      x: `[B, h, w, C]`.
      scale, bias: `[C]`.

    Returns:
      The same shape and dtype; and mean and variance, float32 `[C]`, without gradient.
    """
    return _forward(x, scale, bias)[0]


def _forward(x: jax.Array, scale: jax.Array, bias: jax.Array) -> tuple:
    wide = x.astype(jnp.float32)
    mean = wide.mean(POSITIONS)
    var = jnp.maximum(0, jnp.square(wide).mean(POSITIONS) - jnp.square(mean))
    inverse = jax.lax.rsqrt(var + EPSILON)
    # Not `wide - mean` as in the backward pass: XLA would keep it for both.
    factor = inverse * scale
    y = wide * _wide(factor) + _wide(bias - mean * factor)
    return (y.astype(x.dtype), (mean, var)), (x, mean, inverse, scale)


def _backward(saved: tuple, gradients: tuple) -> tuple[jax.Array, ...]:
    x, mean, inverse, scale = saved
    g, z = gradients[0].astype(jnp.float32), x.astype(jnp.float32)
    count = x.size // x.shape[-1]
    sum_g = g.sum(POSITIONS)
    sum_gz = ((g * (z - _wide(mean))).sum(POSITIONS)) * inverse
    factor = scale * inverse
    slope = -factor * inverse * sum_gz / count
    shift = -factor * sum_g / count - slope * mean
    dx = g * _wide(factor) + z * _wide(slope) + _wide(shift)
    as_param = lambda value: value.astype(scale.dtype)
    return dx.astype(x.dtype), as_param(sum_gz), as_param(sum_g)


normalise.defvjp(_forward, _backward)


def _wide(channels: jax.Array) -> jax.Array:
    """Reshapes `[C]` to `[1, 1, 1, C]`."""
    return channels[None, None, None]
