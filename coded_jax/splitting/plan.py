"""Plans of splits, the pieces of images that they cut, and the merge of features.

Each share of the features gets the window that it depends on, clipped to the image and
then grown so that all windows have one length `h` with `h = H (mod S)` and starts that
are multiples of the total stride `S`; where features are upsampled again, of the
strides before that, too (`Field.step`). The function runs unchanged on the window: its
own padding is the true padding at an image border and elsewhere spoils only outputs
outside the share, which `cut` removes. For a network without padding, such as LeNet-5,
this is the exact receptive-field window and nothing is cut.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from coded_jax.checks import (
    first_line,
    is_integer,
    require,
    require_shape,
    require_sizes,
)
from coded_jax.splitting.receptive_field import analyse
from coded_jax.splitting.traces import Field
from coded_jax.splitting.views import take_views
from coded_jax.types import AxisPlan, Plan, PyTree, SplitPlan, ViewPlan


def make_plan(
    f_conv: Callable[[PyTree, jax.Array], jax.Array],
    variables: PyTree,
    image_shape: tuple[int, int, int],
    grid: tuple[int, int],
    halo: int = 0,
) -> SplitPlan:
    """Plans the split of `f_conv` over a grid of pieces.

    Args:
      f_conv: `(variables, [B, H, W, C]) -> [B, M*, M'*, D]`.
      variables: arrays or shapes (`jax.ShapeDtypeStruct`).
      image_shape: `(H, W, C)`.
      grid: pieces along height and width; `(k, 1)` splits into strips.
      halo: pixels that a piece has at each side beyond those its share depends on.

    Raises:
      ValueError: `halo` is negative, `grid` leaves a piece without features or makes a
        piece as large as the image, or `f_conv` cannot be split.
    """
    parts = require_sizes("grid", grid, "rows", "columns")
    require("halo", halo, is_integer(halo) and halo >= 0, "an integer of 0 or more")
    whole = analyse(f_conv, variables, image_shape)
    rows, columns = (
        plan_axis(
            whole.fields[i],
            size=image_shape[i],
            out=whole.features[i],
            parts=parts[i],
            halo=halo,
            name=name,
        )
        for i, name in enumerate(("rows", "columns"))
    )
    plan = SplitPlan(rows, columns, image_shape[2], whole.features[2])
    # Pieces have another size, with which f_conv must do the same.
    shape = plan.piece_shape
    try:
        piece = analyse(f_conv, variables, shape)
    except Exception as error:
        reason = first_line(error.__cause__ or error)  # of f_conv, if it has failed
        raise ValueError(
            f"f_conv: fails for pieces {shape} but not for images {image_shape}: move "
            f"what depends on the size to the head, or take a smaller k ({reason})"
        ) from error
    different = whole.differs_from(piece)
    if different is not None:
        way_out = "move adaptive pooling and its like to the head"
        if different.startswith(("'slice'", "'gather'")):
            way_out = "crop relative to its end, or move it to the head"
        raise ValueError(
            f"f_conv: operation {different} depends on the size of the image, with "
            f"other windows, padding or constants for pieces {shape} than for images "
            f"{image_shape}: {way_out}"
        )
    least = tuple(max(axis.cuts) + axis.share for axis in (rows, columns))
    if any(n > own for n, own in zip(least, piece.features[:2], strict=True)):
        raise ValueError(
            f"f_conv: makes features {piece.features[:2]} of pieces {shape}, where the "
            f"split needs {least}: take a smaller k"
        )
    return plan


@functools.lru_cache(maxsize=4096)
def plan_axis(
    field: Field, *, size: int, out: int, parts: int, halo: int = 0, name: str = "axis"
) -> AxisPlan:
    """Plans the windows along one axis, of the shortest length that suffices for all.

    Args:
      field: receptive field of the features.
      size: pixels of the image.
      out: features.
      parts: windows.
      halo: see `make_plan`.
      name: of the axis.

    Raises:
      ValueError: a piece would have no features, or need the whole image.
    """
    share = -(-out // parts)
    if (parts - 1) * share >= out:
        accepted = [p for p in range(1, out + 1) if (p - 1) * -(-out // p) < out]
        raise ValueError(
            f"k: {parts} pieces along the {name} would leave empty pieces, since the "
            f"features have {out} {name}; accepted are {accepted}"
        )
    firsts = [min(i * share, out - share) for i in range(parts)]
    needed = [field.window(a, a + share) for a in firsts]
    needed = [(max(0, low - halo), min(size, high + halo)) for low, high in needed]
    step, stride = field.step, field.stride
    window = max(high - low // step * step for low, high in needed)
    window += (size - window) % step
    if window == size and parts > 1:
        raise ValueError(
            f"k: with {parts} pieces along the {name} a piece needs all {size} {name} "
            "of the image, which gains nothing; take fewer"
            f"{', a smaller halo' if halo else ''} or end f_conv earlier"
        )
    starts = [min(low // step * step, size - window) for low, _ in needed]
    cuts = [a - int(start / stride) for a, start in zip(firsts, starts, strict=True)]
    return AxisPlan(
        size=size,
        window=window,
        starts=tuple(starts),
        out=out,
        share=share,
        cuts=tuple(cuts),
        stride=stride,
    )


def split(plan: Plan, images: jax.Array) -> jax.Array:
    """Cuts images into the overlapping pieces of a plan, or takes their views.

    Args:
      plan: from `make_plan` or `plan_views`.
      images: `[B, H, W, C]`.

    Returns:
      `[k, B, h, w, C]`, or of views `[n, B, h, w, C]`, of the same dtype.

    Raises:
      ValueError: the images do not have the plan's shape.
    """
    if isinstance(plan, ViewPlan):
        return take_views(plan, images)
    rows, columns = plan.rows, plan.columns
    require_shape("images", images, ("B", rows.size, columns.size, plan.channels))
    return jnp.stack(
        [
            images[:, i : i + rows.window, j : j + columns.window]
            for i in rows.starts
            for j in columns.starts
        ]
    )


def cut(
    plan: Plan, outputs: jax.Array, copied: Sequence[int | None] | None = None
) -> jax.Array:
    """Cuts each share out of the output of `f_conv` on its piece; of a view it is all.

    Args:
      plan: the split.
      outputs: `[m, B, h, w, D]`.
      copied: for each output, the data piece that it was computed from; None for a
        mixture of pieces, which is cut as an interior data piece is. If None, the
        outputs are those of the k data pieces, then of mixtures.

    Returns:
      `[m, B, M, M', D]`.
    """
    if isinstance(plan, ViewPlan):
        return outputs
    if copied is None:
        copied = (*range(plan.k), *[None] * (len(outputs) - plan.k))
    offsets = cut_offsets(plan, copied)
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


def cut_offsets(plan: Plan, copied: Sequence[int | None]) -> list[tuple[int, int]]:
    """Returns first row and column of each share in the output of its piece."""
    if isinstance(plan, ViewPlan):
        return [(0, 0)] * len(copied)
    offsets = [(i, j) for i in plan.rows.cuts for j in plan.columns.cuts]
    return [offsets[plan.interior if i is None else i] for i in copied]


def merge(plan: Plan, shares: jax.Array) -> jax.Array:
    """Joins the shares of the features, dropping the surplus.

    Args:
      plan: from `make_plan` or `plan_views`.
      shares: `[k, B, M, M', D]`, or of views `[1, B, M*, M'*, D]`.

    Returns:
      `[B, M*, M'*, D]`.

    Raises:
      ValueError: the shares do not have the plan's shape.
    """
    if isinstance(plan, ViewPlan):
        require_shape("shares", shares, (1, "B", *plan.features_shape))
        return shares[0]
    require_shape("shares", shares, (plan.k, "B", *plan.share_shape))
    rows, columns = plan.grid
    strips = []
    for i in range(rows):
        strip = [shares[i * columns + j] for j in range(columns)]
        strip[-1] = strip[-1][:, :, plan.columns.surplus :]
        strips.append(jnp.concatenate(strip, axis=2))
    strips[-1] = strips[-1][:, plan.rows.surplus :]
    return jnp.concatenate(strips, axis=1)


def shares(plan: SplitPlan, merged: jax.Array) -> jax.Array:
    """Cuts `[B, M*, M'*, D]` features into `[k, B, M, M', D]` shares.

    `merge` is the inverse.
    """
    return jnp.stack(
        [
            merged[:, i : i + plan.rows.share, j : j + plan.columns.share]
            for i in plan.rows.firsts
            for j in plan.columns.firsts
        ]
    )
