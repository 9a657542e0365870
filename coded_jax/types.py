"""Records and callables that all packages exchange, without any variables."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

PyTree = Any
"""Variables of a network: nested dicts of arrays."""

Block = Callable[[PyTree, jax.Array], jax.Array]
"""`(variables, x [B, H, W, C]) -> [B, M*, M'*, D]`, see `BaseModel`."""

Kept = tuple[jax.Array, ...]
"""Arrays `[B, ...]` that the client needs later, while devices compute a stage."""

State = Any
"""Stands for input or output of a block: `x [B, H, W, C]`, or `(x, *kept)`, see `Kept`.
"""


class BaseModel(NamedTuple):
    """A CNN in two parts: blocks that can be distributed and a head that cannot.

    Attributes:
      init: `(key, image_shape, classes) -> variables`.
      blocks: the convolutional part, cut where a coded stage may begin or end. Each
        takes the variables of the whole model and the output of the block before it;
        the first one takes the images.
      head: `(variables, features [B, M*, M'*, D]) -> logits [B, classes]`.
      train: `(variables, images) -> (logits, updated)`, for models that are other
        functions while they are trained; it computes in the images' dtype. `updated`
        has the variables, in their places, that training sets without a gradient, such
        as running means of a batch norm. If None, blocks and head are trained as they
        are.
      hidden: `(variables, features [B, M*, M'*, D]) -> [B, Q]`, a layer of the head
        that distillation compares; the logits if None.
    """

    init: Callable[[jax.Array, tuple[int, int, int], int], PyTree]
    blocks: tuple[Block, ...]
    head: Callable[[PyTree, jax.Array], jax.Array]
    train: Callable[[PyTree, jax.Array], tuple[jax.Array, PyTree]] | None = None
    hidden: Callable[[PyTree, jax.Array], jax.Array] | None = None

    def f_conv(self, variables: PyTree, images: jax.Array) -> jax.Array:
        """Computes all blocks: `(variables, [B, H, W, C]) -> [B, M*, M'*, D]`."""
        return chain(self.blocks)(variables, images)


def chain(blocks: tuple[Block, ...]) -> Block:
    """Returns one block that computes `blocks` one after the other."""

    def run(variables: PyTree, x: jax.Array) -> jax.Array:
        for block in blocks:
            x = block(variables, x)
        return x

    return run


def apart(state: State) -> tuple[jax.Array, Kept]:
    """Returns the array that goes on to the next block, and what is kept beside it."""
    return (state[0], state[1:]) if isinstance(state, tuple) else (state, ())


def together(x: jax.Array, kept: Kept) -> State:
    """Returns an array with what is kept beside it, as `apart` takes them apart."""
    return (x, *kept) if kept else x


class CodeShape(NamedTuple):
    """The sizes that a code is built for.

    Attributes:
      k, r: data and parity pieces.
      piece: `(h, w, C)`.
      share: `(M, M', D)`, the features of one piece.
    """

    k: int
    r: int
    piece: tuple[int, int, int]
    share: tuple[int, int, int]

    @property
    def n(self) -> int:
        """Number of all pieces."""
        return self.k + self.r


class Quorum(NamedTuple):
    """The sets of results that suffice, so that nobody waits for others.

    `codes.quorum` has the functions that decide by it.

    Attributes:
      name: `"any_k"`: any k of the n results; `"one_of_each"`: one copy of each data
        piece; `"all_data"`: the k data pieces, beside which nothing is sent.
      copies: the data piece that each of the n queries is a copy of, None for a mixture
        of pieces. If None, the first k queries are the data pieces, and the others
        mixtures.
    """

    name: str = "any_k"
    copies: tuple[int | None, ...] | None = None


class Code(NamedTuple):
    """An erasure code: a pair of pure functions and the parameters they share.

    Attributes:
      init: `key -> params`; an empty dict for a code with nothing to learn.
      encode: `(params, pieces [k, B, h, w, C]) -> queries [n, B, h, w, C]`.
      decode: `(params, features [n, B, M, M', D], available) -> shares
        [k, B, M, M', D]`, where `available`, bool `[n, B]` or `[n, 1]`, is True where
        the result arrived. What stands in a lost slot, NaN included, has no effect.
      systematic: whether `shares[i]` is `features[i]` wherever that result arrived.
      quorum: the sets of results that suffice. Only the queries that it names are sent
        to devices: of `"all_data"` the parity pieces are blank.
      answers_always: whether an image has an answer even where fewer results have
        arrived than suffice, made of those that have.
      parity_worker: `(params, frozen) -> variables` of a code whose mixtures are
        computed by networks of their own: those of the base model, with a leading axis
        `[r]`. If None, by the base model itself.
      encode_flops: operations for each value of a piece, of a code whose `encode` does
        more than is needed; if None, it does not.
      decode_flops: `erasure pattern -> operations` for each value of a share, of a code
        whose `decode` does more than the pattern needs; if None, it does not.
      constants: `mean shares [k, M, M', D] -> params` of a code that is not trained
        but depends on the mean of its shares over the training images.
      nonnegative: whether no decoded share has a negative value, so that the code is
        only of use for features without any.
    """

    init: Callable[[jax.Array], PyTree]
    encode: Callable[[PyTree, jax.Array], jax.Array]
    decode: Callable[[PyTree, jax.Array, jax.Array], jax.Array]
    systematic: bool = False
    quorum: Quorum = Quorum()
    answers_always: bool = True
    parity_worker: Callable[[PyTree, PyTree], PyTree] | None = None
    encode_flops: int | None = None
    decode_flops: Callable[[tuple[int, ...]], int] | None = None
    constants: Callable[[jax.Array], PyTree] | None = None
    nonnegative: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """One part of a data set."""

    images: np.ndarray  # [N, H, W, C], C = 1 for grey images; uint8, or float32 as is
    labels: np.ndarray  # int32 [N]


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """A data set in three disjoint parts."""

    name: str
    classes: int
    train: Split
    validation: Split  # held out of the training images
    test: Split
    mean: tuple[float, ...] | None  # [C], of pixels / 255 over `train`; None if float32
    std: tuple[float, ...] | None  # likewise

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """`(H, W, C)`."""
        return self.train.images.shape[1:]
