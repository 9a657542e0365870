"""Locally connected networks, the "sparse MLP" of the draft that follows the paper.

Every output depends on the 3x3 positions around it, as in a convolution, but with
weights of its own at every position.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from coded_jax.codes.networks.maps import (
    features_to_maps,
    maps_to_features,
    maps_to_pieces,
    pieces_to_maps,
)
from coded_jax.codes.networks.network import Network


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


class LocalEncoder(nn.Module):
    """Locally connected layers over the k pieces as input maps.

    Attributes:
      r: parity pieces.
      width: as in `LocalStack`.
    """

    r: int
    width: int | None = None

    @nn.compact
    def __call__(self, pieces: jax.Array) -> jax.Array:
        """Maps `[k, B, h, w, C] -> [r, B, h, w, C]`; channels share their weights."""
        x = LocalStack(self.r, self.width)(pieces_to_maps(pieces))
        return maps_to_pieces(x, pieces.shape[-1])


class LocalDecoder(nn.Module):
    """Locally connected layers over the features of all results.

    Attributes:
      k: shares to reconstruct.
      joint: the n*D feature maps together, or each of the D channels on its own, with
        shared weights and n input maps.
      width: as in `LocalStack`.
      relu: whether the outputs are never negative, as features after a ReLU are.
    """

    k: int
    joint: bool = True
    width: int | None = None
    relu: bool = True

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        """Maps `[n, B, M, M', D] -> [k, B, M, M', D]`."""
        depth = features.shape[-1]
        out = self.k * (depth if self.joint else 1)
        x = LocalStack(out, self.width)(features_to_maps(features, self.joint))
        return maps_to_features(nn.relu(x) if self.relu else x, self.k, depth)


ENCODER = Network(lambda spec: LocalEncoder(spec.shape.r, spec.width))
DECODER = Network(
    lambda spec: LocalDecoder(spec.shape.k, spec.joint, spec.width, spec.relu)
)
