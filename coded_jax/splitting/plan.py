"""The plan of a split: the window of the image that each piece gets.

Each share of the features gets the window that it depends on, clipped to the image and
then grown so that all windows have one length `h` with `h = H (mod S)` and starts that
are multiples of the total stride `S`; where features are upsampled again, of the
strides before that, too (`Field.step`). The function runs unchanged on the window: its
own padding is the true padding at an image border and elsewhere spoils only outputs
outside the share, which `pieces.cut` removes. For a network without padding, such as
LeNet-5, this is the exact receptive-field window and nothing is cut.
"""

from __future__ import annotations

from collections.abc import Callable

import jax

from coded_jax.checks import first_line, is_integer, require, require_sizes
from coded_jax.splitting.receptive_field import analyse
from coded_jax.splitting.traces import Field
from coded_jax.types import AxisPlan, PyTree, SplitPlan


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
    height, width, channels = require_sizes(
        "image_shape", image_shape, "H", "W", "C", least=1
    )
    image_shape = (height, width, channels)
    grid_sizes = require_sizes("grid", grid, "rows", "columns")
    require("halo", halo, is_integer(halo) and halo >= 0, "an integer of 0 or more")
    whole = analyse(f_conv, variables, image_shape)
    rows, columns = (
        _plan_axis(
            name,
            field=whole.fields[i],
            size=image_shape[i],
            out=whole.features[i],
            parts=grid_sizes[i],
            halo=halo,
        )
        for i, name in enumerate(("rows", "columns"))
    )
    plan = SplitPlan(rows, columns, channels, whole.features[2])
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
    for name, axis, features in (
        ("rows", rows, piece.features[0]),
        ("columns", columns, piece.features[1]),
    ):
        if (least := max(axis.cuts) + axis.share) > features:
            raise ValueError(
                f"f_conv: makes {features} {name} of features of pieces {shape}, where "
                f"the split needs {least}: take a smaller k"
            )
    return plan


def _plan_axis(
    name: str, *, field: Field, size: int, out: int, parts: int, halo: int
) -> AxisPlan:
    """Plans the windows along one axis, of the shortest length that suffices for all.

    Raises:
      ValueError: a piece would have no features, or need the whole image.
    """
    accepted = [p for p in range(1, out + 1) if (p - 1) * -(-out // p) < out]
    if parts not in accepted:
        raise ValueError(
            f"k: {parts} pieces along the {name} would leave empty pieces, since the "
            f"features have {out} {name}; accepted are {accepted}"
        )
    share = -(-out // parts)
    firsts = [min(i * share, out - share) for i in range(parts)]
    needed = [field.window(a, a + share) for a in firsts]
    needed = [(max(0, low - halo), min(size, high + halo)) for low, high in needed]
    step, stride = field.step, field.stride
    window = shortest_window(needed, step, size)
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


def shortest_window(needed: list[tuple[int, int]], step: int, size: int) -> int:
    """Returns the length of windows that begin at multiples of a step.

    Args:
      needed: first pixel of each piece and one past its last one, within the image.
      step: from which length and start of the windows follow, see `plan`.
      size: pixels of the image, of which windows end at the last one at most.
    """
    least = max(high - low // step * step for low, high in needed)
    return least + (size - least) % step
