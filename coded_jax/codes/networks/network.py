"""Encoders and decoders of the registry: their builders, and facts about them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from flax import linen as nn

from coded_jax.types import CodeShape

READS = ("all", "input", "pattern", "results")
"""Names what a guided decoder reads beside the results: the stage's own input and the
pattern, which is the share and which results arrived; one of the two; or neither."""


class NetworkSpec(NamedTuple):
    """Sizes and settings of one network of a learned code.

    Attributes:
      shape: the sizes of the code.
      width: of hidden layers; the network's own if None.
      dilations, kernel: of convolutions, see `conv.DilatedStack`.
      joint: whether a decoder decodes all D feature channels together, or each by
        itself with shared weights.
      relu: whether a decoder ends in a ReLU.
      reads: what a guided decoder reads beside the results, of `READS`.
    """

    shape: CodeShape
    width: int | None
    dilations: tuple[int, ...]
    kernel: int
    joint: bool = True
    relu: bool = True
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
