"""A convolutional encoder on blocks of pixels, cheaper than one on pixels."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from coded_jax.codes.networks.conv import DilatedStack
from coded_jax.codes.networks.maps import maps_to_pieces, pieces_to_maps
from coded_jax.codes.networks.network import Network

BLOCK = 4


class StridedEncoder(nn.Module):
    """Convolutions over the k pieces, each 4x4 block of pixels being one position.

    A strided convolution, 3x3 ones between, and a transposed one back to pixels. A
    shift of the image by the total stride of LeNet-5 is one by a position here.

    Attributes:
      r: parity pieces.
      width: maps of every hidden layer; 128 if None.
      dilations: of the 3x3 layers.
    """

    r: int
    width: int | None = None
    dilations: tuple[int, ...] = (1, 1)

    @nn.compact
    def __call__(self, pieces: jax.Array) -> jax.Array:
        """Maps `[k, B, h, w, C] -> [r, B, h, w, C]`; channels share their weights."""
        _, _, h, w, channels = pieces.shape
        blocks = to_blocks(pieces_to_maps(pieces))
        stack = DilatedStack(self.r * BLOCK**2, self.width or 128, self.dilations)
        parity = from_blocks(stack(blocks), self.r)[:, :h, :w]
        return maps_to_pieces(parity, channels)


def to_blocks(maps: jax.Array) -> jax.Array:
    """Maps `[B, h, w, maps] -> [B, ceil(h/4), ceil(w/4), 16*maps]`, with zeros."""
    batch, h, w, depth = maps.shape
    maps = jnp.pad(maps, ((0, 0), (0, -h % BLOCK), (0, -w % BLOCK), (0, 0)))
    rows, columns = -(-h // BLOCK), -(-w // BLOCK)
    x = maps.reshape(batch, rows, BLOCK, columns, BLOCK, depth)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, rows, columns, -1)


def from_blocks(blocks: jax.Array, depth: int) -> jax.Array:
    """Inverts that: `[B, rows, columns, 16*depth] -> [B, 4*rows, 4*columns, depth]`."""
    batch, rows, columns, _ = blocks.shape
    x = blocks.reshape(batch, rows, columns, BLOCK, BLOCK, depth)
    x = x.transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(batch, BLOCK * rows, BLOCK * columns, depth)


ENCODER = Network(lambda spec: StridedEncoder(spec.shape.r, spec.width))
