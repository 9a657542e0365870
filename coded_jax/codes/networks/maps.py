"""Encoders and decoders that are networks over positions, of pieces or features."""

from __future__ import annotations

from collections.abc import Callable

import jax
from flax import linen as nn

Stack = Callable[[int], nn.Module]
"""Makes a network `[B, h, w, maps] -> [B, h, w, out]`, given `out`."""


class MapsEncoder(nn.Module):
    """A network over the k pieces as input maps.

    Attributes:
      stack: the network.
      r: parity pieces.
    """

    stack: Stack
    r: int

    @nn.compact
    def __call__(self, pieces: jax.Array) -> jax.Array:
        """Maps `[k, B, h, w, C] -> [r, B, h, w, C]`; channels share their weights."""
        parity = self.stack(self.r)(pieces_to_maps(pieces))
        return maps_to_pieces(parity, pieces.shape[-1])


class MapsDecoder(nn.Module):
    """A network over the features of all results.

    Attributes:
      stack: the network.
      k: shares to reconstruct.
      joint: the n*D feature maps together, or each of the D channels on its own, with
        shared weights and n input maps.
      relu: whether the outputs are never negative, as features after a ReLU are.
    """

    stack: Stack
    k: int
    joint: bool
    relu: bool

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        """Maps `[n, B, M, M', D] -> [k, B, M, M', D]`."""
        depth = features.shape[-1]
        network = self.stack(self.k * (depth if self.joint else 1))
        x = network(features_to_maps(features, self.joint))
        return maps_to_features(nn.relu(x) if self.relu else x, self.k, depth)


def pieces_to_maps(pieces: jax.Array) -> jax.Array:
    """Rearranges `[k, B, h, w, C] -> [B*C, h, w, k]`: channels become images."""
    k, batch, h, w, channels = pieces.shape
    return pieces.transpose(1, 4, 2, 3, 0).reshape(batch * channels, h, w, k)


def maps_to_pieces(maps: jax.Array, channels: int) -> jax.Array:
    """Rearranges `[B*C, h, w, r] -> [r, B, h, w, C]`."""
    images, h, w, r = maps.shape
    maps = maps.reshape(images // channels, channels, h, w, r)
    return maps.transpose(4, 0, 2, 3, 1)


def features_to_maps(features: jax.Array, joint: bool) -> jax.Array:
    """Rearranges `[n, B, M, M', D]` to `[B, M, M', n*D]`, or to `[B*D, M, M', n]`."""
    n, batch, m, m2, depth = features.shape
    groups, inner = (1, depth) if joint else (depth, 1)
    x = features.reshape(n, batch, m, m2, groups, inner)
    x = x.transpose(1, 4, 2, 3, 0, 5)
    return x.reshape(batch * groups, m, m2, n * inner)


def maps_to_features(maps: jax.Array, k: int, depth: int) -> jax.Array:
    """Inverts that for k shares of D = `depth` channels: `[k, B, M, M', D]`."""
    images, m, m2, out = maps.shape
    inner = out // k
    groups = depth // inner
    x = maps.reshape(images // groups, groups, m, m2, k, inner)
    x = x.transpose(4, 0, 2, 3, 1, 5)
    return x.reshape(k, images // groups, m, m2, depth)
