"""Encoders and decoders of the registry: their builders, and the axes they work on."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from flax import linen as nn

from coded_jax.types import CodeShape

READS = ("all", "input", "pattern", "results")
"""Names what a guided decoder reads beside the results: the stage's own input and the
pattern, which is the share and which results arrived; one of the two; or neither."""

Layers = Callable[[jax.Array, int], jax.Array]
"""`(x [..., inputs], outputs) -> [..., outputs]`, made of Flax modules."""


class NetworkSpec(NamedTuple):
    """Sizes and settings of one network of a learned code.

    Attributes:
      shape: the sizes of the code.
      out: arrays that it makes, r parity pieces or k shares.
      width: of hidden layers; the network's own if None.
      dilations, kernel: of convolutions, see `conv.DilatedStack`.
      joint: whether all feature channels are decoded together, or each by itself with
        shared weights, as those of pieces are encoded.
      relu: whether it ends in a ReLU, as features do that are never negative.
      reads: what a guided decoder reads beside the results, of `READS`.
    """

    shape: CodeShape
    out: int
    width: int | None
    dilations: tuple[int, ...]
    kernel: int = 3
    joint: bool = False
    relu: bool = False
    reads: str = "all"


class Network(NamedTuple):
    """A registered encoder or decoder.

    Attributes:
      build: an encoder's module maps pieces `[k, B, h, w, C]` to parity pieces
        `[r, B, h, w, C]`, a decoder's results `[n, B, M, M', D]` to shares
        `[k, B, M, M', D]`; None: no network beside the linear part of a systematic
        code.
      joint: whether a decoder decodes its channels together unless told otherwise.
      systematic_only: whether it needs the linear part of a systematic code.
      has_width: whether a width has an effect.
      guided: whether a decoder reads the stage's input, too: its module then maps
        `(stretched, source, state)`, see `sharpen.Sharpen`.
    """

    build: Callable[[NetworkSpec], nn.Module | None]
    joint: bool = True
    systematic_only: bool = False
    has_width: bool = True
    guided: bool = False


class OnArrays(nn.Module):
    """Layers over m pieces or results: `[m, B, h, w, D] -> [out, B, h, w, D]`.

    Attributes:
      layers: their inputs are all values of an image, `m*h*w*D`, or at each position
        those of all arrays, `[h, w, m*D]`; and their outputs likewise.
      spec: has `out`, `joint` and `relu`. If not joint, channels are images of their
        own, with one value in the place of D.
      flat: whether `layers` are given all values of an image.
    """

    layers: Layers
    spec: NetworkSpec
    flat: bool = False

    @nn.compact
    def __call__(self, arrays: jax.Array) -> jax.Array:
        _, batch, h, w, depth = arrays.shape
        groups, inner = (1, depth) if self.spec.joint else (depth, 1)
        shape = [-1, batch, h, w, groups, inner]
        # Batch and groups come first, and the values that layers mix last.
        order = (1, 4, 0, 2, 3, 5) if self.flat else (1, 4, 2, 3, 0, 5)
        x = arrays.reshape(shape).transpose(order)
        x = x.reshape((batch * groups, *(() if self.flat else (h, w)), -1))
        outputs = self.spec.out * inner * (h * w if self.flat else 1)
        y = self.layers(x, outputs)
        shape[0] = self.spec.out
        y = y.reshape([shape[axis] for axis in order])
        y = y.transpose(np.argsort(order)).reshape((-1, batch, h, w, depth))
        return nn.relu(y) if self.spec.relu else y
