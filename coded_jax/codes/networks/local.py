"""Locally connected networks, the "sparse MLP" of the draft that follows the paper.

Every output depends on the 3x3 positions around it, as in a convolution, but with
weights of its own at every position.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from coded_jax.codes.networks.maps import MapsDecoder, MapsEncoder, Stack
from coded_jax.codes.networks.network import Network, NetworkSpec


class Local(nn.Module):
    """A convolution with weights of its own at every position, zeros around the map.

    As `nn.ConvLocal`, which gathers its windows by a convolution with an identity, at
    several times the products of the layer itself.

    Attributes:
      out: output maps.
    """

    out: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[B, h, w, maps] -> [B, h, w, out]`."""
        _, h, w, maps = x.shape
        padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        shifted = [padded[:, i : i + h, j : j + w] for i in range(3) for j in range(3)]
        init = nn.initializers
        kernel = self.param(
            "kernel",
            init.lecun_normal(in_axis=2, out_axis=3, batch_axis=(0, 1)),
            (h, w, 9 * maps, self.out),
        )
        bias = self.param("bias", init.zeros_init(), (h, w, self.out))
        y = jnp.einsum("bhwi,hwio->bhwo", jnp.concatenate(shifted, axis=-1), kernel)
        return y + bias[None]


class LocalStack(nn.Module):
    """Two locally connected layers with 3x3 windows, with ReLU between.

    Attributes:
      out: output maps.
      width: maps of the hidden layer; twice the output maps if None.
    """

    out: int
    width: int | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[B, h, w, maps] -> [B, h, w, out]`."""
        x = nn.relu(Local(self.width or 2 * self.out)(x))
        return Local(self.out)(x)


def _stack(spec: NetworkSpec) -> Stack:
    return lambda out: LocalStack(out, spec.width)


ENCODER = Network(lambda spec: MapsEncoder(_stack(spec), spec.shape.r))
DECODER = Network(
    lambda spec: MapsDecoder(_stack(spec), spec.shape.k, spec.joint, spec.relu)
)
