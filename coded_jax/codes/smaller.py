"""Parity pieces that are the whole input of a stage, made smaller to a piece's shape.

A sum of pieces is no image, and what a frozen `F_Conv` makes of two superposed images
is hard to undo. The whole image, resized, is one that it understands: the features of
this parity piece are a coarse view of all shares at once. Decoding stretches the part
of it that was lost, and a network sharpens that. Montages of several small images are
known (collage inference, Narra et al. 2019); a code of one image by itself, made
smaller, is this project's own.

Both directions are linear and act along one axis after the other. A column of the
parity piece is a weighted sum of the few columns of the image around its place. These
weights are learned; they begin as those of linear interpolation with antialiasing. Of
several parity pieces each begins with places of its own between those of the others.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from coded_jax.types import AxisPlan, PyTree, SplitPlan


class Taps(NamedTuple):
    """Weighted sums along an axis.

    Attributes:
      places: int `[P, T]`, the T values that each of P results is a sum of.
      weights: float32 `[P, T]`.
    """

    places: np.ndarray
    weights: np.ndarray


def shrink(axis: AxisPlan, shift: float) -> Taps:
    """Returns the taps that make the whole axis as short as a window.

    The part of the window that a share depends on most gets all of the image, and its
    halo what lies beyond, at the same scale.

    Args:
      axis: of the split.
      shift: of the places, in features of a share.
    """
    factor = axis.out / axis.share
    margin = _margin(axis)
    stride = float(axis.stride)
    inner = axis.cuts[axis.interior] * stride + margin
    pixel = np.arange(axis.window) + 0.5 - inner
    source = (pixel + shift * stride) * factor - 0.5 + margin
    source = np.clip(source, 0, axis.size - 1)
    count = min(2 * math.ceil(factor), axis.size)
    first = np.clip(np.round(source - (count - 1) / 2), 0, axis.size - count)
    places = first.astype(int)[:, None] + np.arange(count)
    weights = np.maximum(0, 1 - abs(places - source[:, None]) / factor)
    weights /= weights.sum(axis=1, keepdims=True)
    return Taps(places, weights.astype(np.float32))


def stretch(axis: AxisPlan, shift: float) -> Taps:
    """Returns the taps that make shares of the features of the shortened axis.

    Returns:
      Of `[parts, M, 2]`, for each share.
    """
    whole = np.array(axis.firsts)[:, None] + np.arange(axis.share)
    source = (whole + 0.5) * axis.share / axis.out - shift - 0.5
    source = np.clip(source, 0, axis.share - 1)
    low = np.minimum(source.astype(int), max(axis.share - 2, 0))
    places = np.stack([low, np.minimum(low + 1, axis.share - 1)], axis=-1)
    high = source - low
    weights = np.stack([1 - high, high], axis=-1).astype(np.float32)
    return Taps(places, weights)


def _margin(axis: AxisPlan) -> int:
    """Returns the pixels before the first one that a feature is centred on, of networks
    without padding."""
    return int(max(0, axis.size - axis.out * axis.stride) // 2)


def shifts(r: int) -> list[float]:
    """Returns the places of r parity pieces between each other, in features."""
    return [(j - (r - 1) / 2) / r for j in range(r)]


def whole(plan: SplitPlan, pieces: jax.Array) -> jax.Array:
    """Puts the image together again from its pieces `[k, B, h, w, C]`, of each the
    rows and columns up to the next one."""
    axes = (plan.rows, plan.columns)
    heights, widths = (np.diff([*axis.starts, axis.size]) for axis in axes)
    of_rows = pieces.reshape((*plan.grid, *pieces.shape[1:]))
    strips = []
    for height, row in zip(heights, of_rows, strict=True):
        own = [x[:, :height, :width] for x, width in zip(row, widths, strict=True)]
        strips.append(jnp.concatenate(own, axis=2))
    return jnp.concatenate(strips, axis=1)


def init(plan: SplitPlan, r: int) -> PyTree:
    """Returns `{"rows": [r, h, T], "columns": [r, w, T]}`, those that are split."""
    return {
        name: jnp.stack([shrink(axis, shift).weights for shift in shifts(r)])
        for name, _, axis in _split_axes(plan)
    }


def parity(plan: SplitPlan, weights: PyTree, pieces: jax.Array) -> jax.Array:
    """Makes the whole image as small as a piece: `[k, B, h, w, C] -> [r, B, h, w, C]`.

    Args:
      plan: of the split.
      weights: as `init` gives them.
      pieces: the data pieces.
    """
    image = whole(plan, pieces).astype(jnp.float32)
    views = []
    for j, shift in enumerate(shifts(len(jax.tree.leaves(weights)[0]))):
        view = image
        for name, number, axis in _split_axes(plan):
            places = shrink(axis, shift).places
            view = _weighted(view, places, weights[name][j], number)
        views.append(view)
    return jnp.stack(views).astype(pieces.dtype)


def stretched(plan: SplitPlan, results: jax.Array, shares: jax.Array) -> jax.Array:
    """Stretches the part of each parity result that stands for a share.

    Args:
      plan: of the split.
      results: `[r, B, M, M', D]`, of the parity pieces.
      shares: int32 `[q, B]` or `[q, 1]`, which shares of each image.

    Returns:
      `[r, q, B, M, M', D]`.
    """

    def view(result: jax.Array, shift: float, numbers: jax.Array) -> jax.Array:
        places = jnp.divmod(numbers, plan.grid[1])  # row and column
        for _, number, axis in _split_axes(plan):
            taps = stretch(axis, shift)
            own, weights = (jnp.asarray(x)[places[number - 1]] for x in taps)
            result = _weighted(result, own, weights.astype(result.dtype), number)
        return result

    views = [
        jnp.stack([view(result, shift, numbers) for numbers in shares])
        for result, shift in zip(results, shifts(len(results)), strict=True)
    ]
    return jnp.stack(views)


def _split_axes(plan: SplitPlan) -> list[tuple[str, int, AxisPlan]]:
    """Returns name, number in `[B, h, w, C]` and plan of each axis that is split."""
    axes = [("rows", 1, plan.rows), ("columns", 2, plan.columns)]
    return [axis for axis in axes if axis[2].parts > 1]


def _weighted(
    x: jax.Array, places: np.ndarray | jax.Array, weights: jax.Array, number: int
) -> jax.Array:
    """Sums `weights[.., p, t] x[places[.., p, t]]` over t, along an axis of `x`.

    Args:
      x: `[B, h, w, C]`.
      places, weights: `[P, T]`, or `[B, P, T]` for each image its own.
      number: of the axis, 1 or 2.
    """
    shape = [1 if places.ndim == 2 else places.shape[0], 1, 1, 1]
    shape[number] = places.shape[-2]

    def tap(t: int) -> jax.Array:
        place, weight = places[..., t].reshape(shape), weights[..., t].reshape(shape)
        return jnp.take_along_axis(x, place, axis=number) * weight

    return functools.reduce(jnp.add, map(tap, range(places.shape[-1])))


def pixels_of(plan: SplitPlan) -> int:
    """Returns the values of the input at each position of a share, `S S' C`; where it
    is finer than pixels, those of the pixel that it lies in."""
    return plan.rows.stride.numerator * plan.columns.stride.numerator * plan.channels


def sources(plan: SplitPlan, pieces: jax.Array) -> jax.Array:
    """Takes the part of each piece that its share stands for, a position's pixels side
    by side: `[k, B, h, w, C] -> [k, B, M, M', S S' C]`, with zeros beyond the piece."""
    axes = (plan.rows, plan.columns)
    (height, step), (width, other_step) = (
        (axis.share, axis.stride.numerator) for axis in axes
    )
    parts = []
    for i, piece in enumerate(pieces):
        own = piece
        for axis, place, number in zip(
            axes, divmod(i, plan.grid[1]), (1, 2), strict=True
        ):
            finer = axis.stride.denominator
            start = int((axis.cuts[place] * axis.stride + _margin(axis)) * finer)
            stop = start + axis.share * axis.stride.numerator
            padding = [(0, 0)] * 4
            padding[number] = (0, max(0, stop - axis.window * finer))
            own = jnp.pad(jnp.repeat(own, finer, axis=number), padding)
            own = jax.lax.slice_in_dim(own, start, stop, axis=number)
        blocks = own.reshape(
            (own.shape[0], height, step, width, other_step, plan.channels)
        )
        parts.append(blocks.swapaxes(2, 3).reshape((own.shape[0], height, width, -1)))
    return jnp.stack(parts)
