"""Records and callables that all packages exchange, without any variables."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from fractions import Fraction
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


@dataclasses.dataclass(frozen=True)
class AxisPlan:
    """The split along one axis.

    Attributes:
      size: pixels of the image, `H`.
      window: pixels of a piece, `h`.
      starts: first pixel of each piece.
      out: features of the whole image, `M*`.
      share: features of one share, `M`.
      cuts: first feature of each share in the output of its piece.
      stride: pixels from one feature to the next, the total stride `S`; a fraction
        where features are finer than pixels.
    """

    size: int
    window: int
    starts: tuple[int, ...]
    out: int
    share: int
    cuts: tuple[int, ...]
    stride: int | Fraction

    @property
    def parts(self) -> int:
        """Number of windows."""
        return len(self.starts)

    @property
    def holders(self) -> list[int]:
        """Number of pieces that hold each pixel."""
        return [
            sum(start <= pixel < start + self.window for start in self.starts)
            for pixel in range(self.size)
        ]

    @property
    def halos(self) -> tuple[int, ...]:
        """Pixels of each piece's window that another piece holds too, its halo.

        It is the price of a split: without overlap all are 0.
        """
        return tuple(
            sum(n > 1 for n in self.holders[start : start + self.window])
            for start in self.starts
        )

    @property
    def surplus(self) -> int:
        """Features that the last share repeats of the one before it."""
        return self.parts * self.share - self.out

    @property
    def firsts(self) -> list[int]:
        """First feature of each share, of those of the whole image."""
        return [min(i * self.share, self.out - self.share) for i in range(self.parts)]

    @property
    def outputs(self) -> int:
        """Features of the output of a piece; those beside its share are inexact."""
        return self.out - int((self.size - self.window) / self.stride)

    @property
    def interior(self) -> int:
        """The piece whose cut is that of a mixture of pieces, too."""
        return self.parts // 2


@dataclasses.dataclass(frozen=True)
class SplitPlan:
    """The split of images of one shape into `k` pieces, row by row of the grid."""

    rows: AxisPlan
    columns: AxisPlan
    channels: int
    feature_channels: int

    @property
    def grid(self) -> tuple[int, int]:
        """Pieces along height and width."""
        return self.rows.parts, self.columns.parts

    @property
    def k(self) -> int:
        """Number of all pieces."""
        return self.rows.parts * self.columns.parts

    @property
    def piece_shape(self) -> tuple[int, int, int]:
        """Shape of a piece, `(h, w, C)`."""
        return self.rows.window, self.columns.window, self.channels

    @property
    def share_shape(self) -> tuple[int, int, int]:
        """Shape of a share, `(M, M', D)`."""
        return self.rows.share, self.columns.share, self.feature_channels

    @property
    def output_shape(self) -> tuple[int, int, int]:
        """Shape of the output of a piece, `(h', w', D)`: its share, and beside it."""
        return self.rows.outputs, self.columns.outputs, self.feature_channels

    @property
    def interior(self) -> int:
        """The data piece whose cut is that of parity pieces, too."""
        return self.rows.interior * self.columns.parts + self.columns.interior

    @property
    def features_shape(self) -> tuple[int, int, int]:
        """Shape of the features of the whole image, `(M*, M'*, D)`."""
        return self.rows.out, self.columns.out, self.feature_channels

    @property
    def work_fraction(self) -> float:
        """Cost of `f_conv` on one piece over its cost on the whole image."""
        return (self.rows.window * self.columns.window) / (
            self.rows.size * self.columns.size
        )

    @property
    def exact(self) -> bool:
        """True: merged shares equal the features of the whole image."""
        return True


class View(NamedTuple):
    """A part of an image, which is made smaller where it is larger than a view.

    Attributes:
      top, left: its first row and column.
      height, width: of the part, in pixels of the image.
      mirrored: whether it is mirrored left to right.
    """

    top: int
    left: int
    height: int
    width: int
    mirrored: bool = False


@dataclasses.dataclass(frozen=True)
class ViewPlan:
    """The views of images of one shape: a split of one round that is not exact.

    A view need not contain the receptive field of any feature; the decoder estimates
    the features of the whole image from those of all views.

    Attributes:
      image_shape: `(H, W, C)`.
      views: n of them; the last r are parity, the others cover the image.
      r: parity views.
      size: `(h, w)` of every view, once it is made smaller.
      output_shape: `(M, M', D)`, of what a device returns.
      features_shape: `(M*, M'*, D)`, of the whole image.
      mean, std: of pixels that come as bytes, on whose grid smaller images are rounded,
        so that a view is sent as bytes; None for images of real numbers.
    """

    image_shape: tuple[int, int, int]
    views: tuple[View, ...]
    r: int
    size: tuple[int, int]
    output_shape: tuple[int, int, int]
    features_shape: tuple[int, int, int]
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    @property
    def k(self) -> int:
        """Number of views that are no parity."""
        return len(self.views) - self.r

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the views that are no parity, one below the other."""
        return self.k, 1

    @property
    def channels(self) -> int:
        """Channels of the images."""
        return self.image_shape[-1]

    @property
    def piece_shape(self) -> tuple[int, int, int]:
        """Shape of a view, `(h, w, C)`."""
        return *self.size, self.channels

    @property
    def share_shape(self) -> tuple[int, int, int]:
        """Shape of what a device returns, all of which is its share."""
        return self.output_shape

    @property
    def work_fraction(self) -> float:
        """Pixels of a view over those of the whole image."""
        height, width, _ = self.image_shape
        return self.size[0] * self.size[1] / (height * width)

    @property
    def exact(self) -> bool:
        """False: the features of the whole image are estimated from those of views."""
        return False


Plan = SplitPlan | ViewPlan
"""How an image is split: into windows that suffice, or into views."""


class CodeShape(NamedTuple):
    """The sizes that a code is built for.

    Attributes:
      k, r: data and parity pieces.
      piece: `(h, w, C)`.
      share: `(M, M', D)`, the features of one piece.
      plan: how the pieces lie in the image, for codes that depend on it.
    """

    k: int
    r: int
    piece: tuple[int, int, int]
    share: tuple[int, int, int]
    plan: Plan | None = None

    @classmethod
    def of(cls, plan: Plan, r: int) -> CodeShape:
        """Returns the sizes of a code with r parity pieces for the pieces of a plan."""
        return cls(plan.k, r, plan.piece_shape, plan.share_shape, plan)

    @property
    def n(self) -> int:
        """Number of all pieces."""
        return self.k + self.r

    @property
    def known_plan(self) -> SplitPlan:
        """Returns the plan, for codes that depend on it.

        Raises:
          ValueError: the sizes come without one, or are those of views.
        """
        if not isinstance(self.plan, SplitPlan):
            accepted = "the plan of an exact split, as CodeShape.of gives it,"
            given = type(self.plan).__name__
            raise ValueError(f"shape.plan: {given} given, {accepted} accepted")
        return self.plan

    def result(self, uncut: bool) -> tuple[int, int, int]:
        """Returns the shape of what a device returns, see `Traits.uncut`."""
        return self.known_plan.output_shape if uncut else self.share


class Quorum(NamedTuple):
    """The sets of results that suffice, so that nobody waits for others.

    `codes.quorum` has the functions that decide by it.

    Attributes:
      name: `"any_k"`: any k of the n results; `"one_of_each"`: one copy of each data
        piece; `"all_data"`: the k data pieces, beside which nothing is sent;
        `"one_of_sets"`: all results of one of some sets.
      copies: the data piece that each of the n queries is a copy of, None for a mixture
        of pieces. If None, the first k queries are the data pieces, and the others
        mixtures.
      sets: of `"one_of_sets"`, indices of results.
    """

    name: str = "any_k"
    copies: tuple[int | None, ...] | None = None
    sets: tuple[tuple[int, ...], ...] = ()


class CodeFlops(NamedTuple):
    """Operations that a code needs at least, where it computes more.

    Attributes:
      encode: for each value of a piece; if None, what `encode` computes.
      decode: `erasure pattern -> operations` for each value of a share; if None, what
        `decode` computes.
    """

    encode: int | None = None
    decode: Callable[[tuple[int, ...]], int] | None = None


class Traits(NamedTuple):
    """Traits of a code that those who run it must know.

    Attributes:
      answers_always: whether an image has an answer even where fewer results have
        arrived than suffice, made of those that have.
      nonnegative: whether no decoded share has a negative value, so that the code is
        only of use for features without any.
      guided: whether `decode` reads the data pieces, too, which the client then keeps.
      fills: how many lost shares of an image `decode` reconstructs, the first ones; it
        is called again for others, see `stages.end_stage`. If None, all.
      uncut: whether devices return the whole outputs of their pieces, `[h', w', D]`,
        which `decode` is given in the place of shares `[M, M', D]`, see `plan.cut`.
      constants: `mean shares [k, M, M', D] -> params` of a code that is not trained
        but depends on the mean of its shares over the training images.
      lossy: whether queries that are data pieces differ from them, as where fewer bits
        are sent; found out of codes of the user's own.
      fit: `(moments, ridge) -> params` of a decoder of least squares, see
        `least_squares.Moments`; None of a code that is trained by steps, or not at all.
      fit: `(moments, ridge) -> params` of a decoder of least squares, see
        `least_squares.Moments`; None of a code that is trained by steps, or not at all.
      fit: `(moments, ridge) -> params` of a decoder of least squares, see
        `least_squares.Moments`; None of a code that is trained by steps, or not at all.
      flops: operations that it needs, if it computes more.
      parity_worker: `(params, frozen) -> variables` of a code whose mixtures are
        computed by networks of their own: those of the base model, with a leading axis
        `[r]`. If None, by the base model itself.
    """

    answers_always: bool = True
    nonnegative: bool = False
    guided: bool = False
    fills: int | None = None
    uncut: bool = False
    constants: Callable[[jax.Array], PyTree] | None = None
    lossy: bool = False
    fit: Callable[[Any, float], PyTree] | None = None
    flops: CodeFlops = CodeFlops()
    parity_worker: Callable[[PyTree, PyTree], PyTree] | None = None


class Code(NamedTuple):
    """An erasure code: a pair of pure functions and the parameters they share.

    Attributes:
      init: `key -> params`; an empty dict for a code with nothing to learn.
      encode: `(params, pieces [k, B, h, w, C]) -> queries [n, B, h, w, C]`; of views
        all n are given.
      decode: `(params, features [n, B, M, M', D], available) -> shares
        [k, B, M, M', D]`, where `available`, bool `[n, B]` or `[n, 1]`, is True where
        the result arrived. What stands in a lost slot, NaN included, has no effect. Of
        a guided code: `(params, features, available, pieces)`. Of views, the features
        of the whole image, `[1, B, M*, M'*, D]`.
      systematic: whether `shares[i]` is `features[i]` wherever that result arrived.
      quorum: the sets of results that suffice. Only the queries that it names are sent
        to devices: of `"all_data"` the parity pieces are blank.
      traits: what those who run it must know.
    """

    init: Callable[[jax.Array], PyTree]
    encode: Callable[[PyTree, jax.Array], jax.Array]
    decode: Callable[..., jax.Array]
    systematic: bool = False
    quorum: Quorum = Quorum()
    traits: Traits = Traits()


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """One part of a data set."""

    images: np.ndarray  # [N, H, W, C], C = 1 for grey images; uint8, or float32 as is
    labels: np.ndarray  # int32 [N] or [N, H', W'], see `Dataset`


DENSE = 3
"""Axes of labels that have a class for each position, `[B, H', W']`."""


def are_values(labels: Any) -> bool:
    """Returns whether an array of labels has values and not classes."""
    return labels.dtype.kind == "f"


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """A data set in three disjoint parts.

    Labels are classes of images, int32 `[N]`; classes of positions, int32
    `[N, H', W']`, of which -1 does not count; or values that the network shall put out,
    float32 `[N, H', W', C']`, as of a network that restores images.
    """

    name: str
    classes: int  # or channels C' of values
    train: Split
    validation: Split  # held out of the training images
    test: Split
    mean: tuple[float, ...] | None  # [C], of pixels / 255 over `train`; None if float32
    std: tuple[float, ...] | None  # likewise

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """`(H, W, C)`."""
        return self.train.images.shape[1:]

    @property
    def positions(self) -> tuple[int, ...]:
        """`(H', W')` where answers are images; empty where each is a class."""
        return self.train.labels.shape[1:3]

    @property
    def values(self) -> bool:
        """Returns whether labels are values and not classes."""
        return are_values(self.train.labels)
