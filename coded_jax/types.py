"""The records that the parts exchange: pure functions, with their variables apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

PyTree = Any
"""Variables of a network: nested dicts of arrays."""


class BaseModel(NamedTuple):
    """A CNN cut in two: the part that is distributed and the part that is not.

    Attributes:
      init: `(key, image_shape, classes) -> variables`.
      f_conv: `(variables, images [B, H, W, C]) -> features [B, M*, M'*, D]`.
      head: `(variables, features [B, M*, M'*, D]) -> logits [B, classes]`.
    """

    init: Callable[[jax.Array, tuple[int, int, int], int], PyTree]
    f_conv: Callable[[PyTree, jax.Array], jax.Array]
    head: Callable[[PyTree, jax.Array], jax.Array]


class CodeShape(NamedTuple):
    """The sizes that a code is built for."""

    k: int
    r: int
    piece: tuple[int, int, int]  # (h, w, C)
    share: tuple[int, int, int]  # (M, M', D)

    @property
    def n(self) -> int:
        return self.k + self.r


class Code(NamedTuple):
    """An erasure code: a pair of pure functions and the parameters they share.

    Attributes:
      init: `key -> params`; an empty dict for a code with nothing to learn.
      encode: `(params, pieces [k, B, h, w, C]) -> queries [n, B, h, w, C]`, and
        `queries[:k]` is `pieces`.
      decode: `(params, features [n, B, M, M', D], available) -> shares
        [k, B, M, M', D]`, where `available`, bool `[n, B]` or `[n, 1]`, is True where
        the result arrived. What stands in a lost slot, NaN included, has no effect.
      systematic: whether `shares[i]` is `features[i]` wherever that result arrived.
    """

    init: Callable[[jax.Array], PyTree]
    encode: Callable[[PyTree, jax.Array], jax.Array]
    decode: Callable[[PyTree, jax.Array, jax.Array], jax.Array]
    systematic: bool = False
