"""Exact splitting of a CNN over overlapping pieces of the image.

Each share of the features gets the window of the image that it depends on, clipped to
the image and then grown so that all windows have one length `h` with `h = H (mod S)`
and starts that are multiples of the total stride `S`. The function runs unchanged on
the window: its own padding is the true padding at an image border and elsewhere spoils
only outputs outside the share, which `cut` removes. For a network without padding, such
as LeNet-5, this is the exact receptive-field window and nothing is cut.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from coded_jax.geometry import Analysis, Field, analyse
from coded_jax.types import PyTree


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
    """

    size: int
    window: int
    starts: tuple[int, ...]
    out: int
    share: int
    cuts: tuple[int, ...]

    @property
    def parts(self) -> int:
        return len(self.starts)

    @property
    def halos(self) -> tuple[int, ...]:
        """How many pixels of each piece's window another piece holds too.

        It is the price of a split: without overlap all are 0.
        """
        holders = [0] * self.size
        for start in self.starts:
            for pixel in range(start, start + self.window):
                holders[pixel] += 1
        return tuple(
            sum(n > 1 for n in holders[start : start + self.window])
            for start in self.starts
        )

    @property
    def surplus(self) -> int:
        """Features that the last share repeats of the one before it."""
        return self.parts * self.share - self.out


@dataclasses.dataclass(frozen=True)
class SplitPlan:
    """How images of one shape are split into `k` pieces, row by row of the grid."""

    rows: AxisPlan
    columns: AxisPlan
    channels: int
    feature_channels: int

    @property
    def grid(self) -> tuple[int, int]:
        return self.rows.parts, self.columns.parts

    @property
    def k(self) -> int:
        return self.rows.parts * self.columns.parts

    @property
    def piece_shape(self) -> tuple[int, int, int]:
        """`(h, w, C)`."""
        return self.rows.window, self.columns.window, self.channels

    @property
    def share_shape(self) -> tuple[int, int, int]:
        """`(M, M', D)`."""
        return self.rows.share, self.columns.share, self.feature_channels

    @property
    def work_fraction(self) -> float:
        """Cost of `f_conv` on one piece over its cost on the whole image."""
        return (self.rows.window * self.columns.window) / (
            self.rows.size * self.columns.size
        )


def make_plan(
    f_conv: Callable[[PyTree, jax.Array], jax.Array],
    variables: PyTree,
    image_shape: tuple[int, int, int],
    grid: tuple[int, int],
) -> SplitPlan:
    """Plans the split of `f_conv` over a grid of pieces.

    Args:
      f_conv: `(variables, [B, H, W, C]) -> [B, M*, M'*, D]`.
      variables: arrays or `jax.ShapeDtypeStruct`s.
      image_shape: `(H, W, C)`.
      grid: pieces along height and width; `(k, 1)` splits into strips.

    Raises:
      ValueError: `grid` leaves a piece without features or makes a piece as large as
        the image, or `f_conv` cannot be split.
    """
    whole = analyse(f_conv, variables, image_shape)
    rows, columns = (
        _plan_axis(name, field, size, features, parts)
        for name, field, size, features, parts in zip(
            ("rows", "columns"),
            whole.fields,
            image_shape[:2],
            whole.features[:2],
            grid,
            strict=True,
        )
    )
    plan = SplitPlan(rows, columns, image_shape[2], whole.features[2])
    _check_pieces(f_conv, variables, image_shape, plan, whole)
    return plan


def _check_pieces(
    f_conv: Callable[[PyTree, jax.Array], jax.Array],
    variables: PyTree,
    image_shape: tuple[int, int, int],
    plan: SplitPlan,
    whole: Analysis,
) -> None:
    """Pieces have other sizes than the image: what is done must not depend on them."""
    try:
        piece = analyse(f_conv, variables, plan.piece_shape)
    except Exception as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ValueError(
            f"f_conv: fails for pieces {plan.piece_shape} but not for images "
            f"{image_shape}: move what depends on the size to the head, or take a "
            f"smaller k ({reason})"
        ) from error
    different = whole.differs_from(piece)
    if different is not None:
        raise ValueError(
            f"f_conv: operation {different} depends on the size of the image, with "
            f"other windows, padding or constants for pieces {plan.piece_shape} than "
            f"for images {image_shape}: move adaptive pooling and its like to the head"
        )
    for axis, name, features in zip(
        (plan.rows, plan.columns), ("rows", "columns"), piece.features[:2], strict=True
    ):
        if max(axis.cuts) + axis.share > features:
            raise ValueError(
                f"f_conv: makes {features} {name} of features of pieces "
                f"{plan.piece_shape}, where the split needs "
                f"{max(axis.cuts) + axis.share}: take a smaller k"
            )


def _plan_axis(name: str, field: Field, size: int, out: int, parts: int) -> AxisPlan:
    share = -(-out // max(parts, 1))
    if not 1 <= parts <= out or (parts - 1) * share >= out:
        accepted = [p for p in range(1, out + 1) if (p - 1) * -(-out // p) < out]
        raise ValueError(
            f"k: {parts} pieces along the {name} would leave empty pieces, since the "
            f"features have {out} {name}; accepted are {accepted}"
        )
    firsts = [min(i * share, out - share) for i in range(parts)]
    needed = [field.window(a, a + share) for a in firsts]
    needed = [(max(0, low), min(size, high)) for low, high in needed]
    stride = field.stride
    for window in range(size % stride or stride, size + 1, stride):
        starts = [min(low // stride * stride, size - window) for low, _ in needed]
        if all(s + window >= high for s, (_, high) in zip(starts, needed, strict=True)):
            break
    else:
        raise AssertionError("the whole image is always enough")
    if window == size and parts > 1:
        raise ValueError(
            f"k: with {parts} pieces along the {name} a piece needs all {size} {name} "
            "of the image, which gains nothing; take fewer or end f_conv earlier"
        )
    cuts = [a - s // stride for a, s in zip(firsts, starts, strict=True)]
    return AxisPlan(size, window, tuple(starts), out, share, tuple(cuts))


def split(plan: SplitPlan, images: jax.Array) -> jax.Array:
    """`[B, H, W, C]` images to `[k, B, h, w, C]` pieces, of the same dtype.

    Raises:
      ValueError: the images do not have the plan's shape.
    """
    expected = (plan.rows.size, plan.columns.size, plan.channels)
    if images.ndim != 4 or images.shape[1:] != expected:
        raise ValueError(
            f"images: shape {images.shape} given, [B, {', '.join(map(str, expected))}] "
            "accepted"
        )
    return jnp.stack(
        [
            images[:, i : i + plan.rows.window, j : j + plan.columns.window]
            for i in plan.rows.starts
            for j in plan.columns.starts
        ]
    )


def cut(plan: SplitPlan, outputs: jax.Array, first: int = 0) -> jax.Array:
    """Cuts each share out of what `f_conv` made of its piece.

    Args:
      plan: the split.
      outputs: `[m, B, h, w, D]` of the pieces `first..first+m-1`: data pieces first,
        then any number of parity pieces, which are cut as an interior data piece is.
      first: `k` if the outputs are of parity pieces only.

    Returns:
      `[m, B, M, M', D]`.
    """
    offsets = [(i, j) for i in plan.rows.cuts for j in plan.columns.cuts]
    interior = (plan.rows.parts // 2) * plan.columns.parts + plan.columns.parts // 2
    last = first + outputs.shape[0]
    offsets = [offsets[i if i < plan.k else interior] for i in range(first, last)]
    height, width = plan.rows.share, plan.columns.share
    if len(set(offsets)) == 1:
        i, j = offsets[0]
        return outputs[:, :, i : i + height, j : j + width]
    return jnp.stack(
        [
            output[:, i : i + height, j : j + width]
            for output, (i, j) in zip(outputs, offsets, strict=True)
        ]
    )


def merge(plan: SplitPlan, shares: jax.Array) -> jax.Array:
    """`[k, B, M, M', D]` shares to `[B, M*, M'*, D]` features, dropping the surplus."""
    rows, columns = plan.grid
    strips = []
    for i in range(rows):
        strip = [shares[i * columns + j] for j in range(columns)]
        strip[-1] = strip[-1][:, :, plan.columns.surplus :]
        strips.append(jnp.concatenate(strip, axis=2))
    strips[-1] = strips[-1][:, plan.rows.surplus :]
    return jnp.concatenate(strips, axis=1)


def shares(plan: SplitPlan, merged: jax.Array) -> jax.Array:
    """`[B, M*, M'*, D]` features to `[k, B, M, M', D]` shares, of which `merge` is the
    inverse."""
    rows, columns = (
        [min(i * axis.share, axis.out - axis.share) for i in range(axis.parts)]
        for axis in (plan.rows, plan.columns)
    )
    return jnp.stack(
        [
            merged[:, i : i + plan.rows.share, j : j + plan.columns.share]
            for i in rows
            for j in columns
        ]
    )
