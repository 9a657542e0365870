"""Pieces and features as the maps of a network over positions, and back."""

from __future__ import annotations

import jax


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
