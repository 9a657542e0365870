"""Rules for operations on features of the image that see or take several positions.

Convolutions, pooling, padding, slices, and the indexing that is a slice in disguise.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from coded_jax.splitting.constants import windows_of_operation
from coded_jax.splitting.rules import (
    axis_names,
    join_reduced,
    rule,
    sole_feature,
)
from coded_jax.splitting.traces import (
    Constant,
    Feature,
    Operands,
    Refusal,
    Window,
    digest_of,
    repeated,
    windows,
)


@rule("conv_general_dilated pad reduce_window reduce_window_max reduce_window_min")
@rule("reduce_window_sum slice")
def _move_window(eqn: Any, traces: Operands) -> Feature:
    name, params = eqn.primitive.name, eqn.params
    to, windows_along = windows_of_operation(eqn)
    if name == "conv_general_dilated":
        feature, numbers = sole_feature(traces, "a kernel"), params["dimension_numbers"]
        batch, channels, *_ = numbers.lhs_spec
        if feature.axes[0] != batch or channels in feature.axes:
            raise Refusal("takes rows, columns or batch for channels")
        if params["batch_group_count"] != 1:
            raise Refusal("groups the batch")
    else:
        feature = join_reduced(eqn, traces)
        if windows_along[feature.axes[0]] and name == "slice":
            raise Refusal("takes a part of the batch (edge padding?)")
        if windows_along[feature.axes[0]]:
            raise Refusal("has a window or padding over the batch")
    _, rows, columns = feature.axes
    return feature.through(windows_along[rows], windows_along[columns]).remap_axes(to)


@rule("dynamic_slice")
def _dynamic_slice(eqn: Any, traces: Operands) -> Feature:
    feature, sizes = sole_feature(traces, "an index"), eqn.params["slice_sizes"]
    cut = {a for a in feature.axes if sizes[a] != eqn.invars[0].aval.shape[a]}
    if cut:
        raise Refusal(f"takes a part of {axis_names(feature, cut)} by computed indices")
    return feature


@rule("gather")
def _gather(eqn: Any, traces: Operands) -> Feature:
    feature, numbers = sole_feature(traces, "an index"), eqn.params["dimension_numbers"]
    constant, sizes = traces[1], eqn.params["slice_sizes"]
    assert isinstance(constant, Constant)
    shape, indices = eqn.invars[0].aval.shape, constant.value and constant.value()
    gone = {*numbers.collapsed_slice_dims, *numbers.operand_batching_dims}
    kept = [axis for axis in range(len(shape)) if axis not in gone]
    to = dict(zip(kept, numbers.offset_dims, strict=True))
    indexed = [axis for axis in feature.axes if sizes[axis] != shape[axis]]
    if feature.axes[0] in indexed or set(indexed) - set(numbers.start_index_map):
        raise Refusal(f"indexes {axis_names(feature, set(indexed))}")
    # What is left of the axes of the indices, but the last, fills the other axes.
    rank = len(eqn.outvars[0].aval.shape)
    places = [axis for axis in range(rank) if axis not in numbers.offset_dims]
    steps: dict[int, list[Window]] = {axis: [] for axis in feature.axes}
    for axis in indexed:
        # Before jax 0.8, x[:, ::2, ::2] is a gather by a grid of indices.
        size = shape[axis]
        line = _evenly_spaced(indices, numbers.start_index_map.index(axis))
        if (
            axis in to
            or line is None
            or line.end > size
            or (line.factor > 1 and line.end < size)
        ):
            raise Refusal(f"indexes {axis_names(feature, {axis})} (resize?)")
        to[axis] = places[line.axis]
        if line.factor > 1:
            steps[axis] = repeated(size, line.factor)
            continue
        # A stride may skip some positions at the end, as a slice would.
        end = line.end + min(line.stride - 1, size - line.end)
        crop = windows(size, padding=(-line.start, end - size))
        steps[axis] = crop + windows(end - line.start, stride=line.stride)
    if len({to[axis] for axis in feature.axes if axis in to}) < 3:
        raise Refusal("drops rows or columns, or takes a diagonal")
    # The axes of the indices along which other channels are taken.
    batching = (numbers.operand_batching_dims, numbers.start_indices_batching_dims)
    channels = {
        i for axis, i in zip(*batching, strict=True) if axis not in feature.axes
    }
    for part, axis in enumerate(numbers.start_index_map):
        if axis not in feature.axes:
            channels |= (
                constant.varying if indices is None else _axes_of(indices[..., part])
            )
    last = len(eqn.invars[1].aval.shape) - 1
    channels_along = {places[i] for i in channels - {last}}
    for axis in feature.axes:
        if to[axis] in channels_along:
            held = axis_names(feature, {axis})
            raise Refusal(f"takes a diagonal over {held} and channels")
    feature = feature.through(steps[feature.axes[1]], steps[feature.axes[2]])
    return feature.remap_axes(to)


class _Line(NamedTuple):
    """Indices `start + stride * (i // factor)`, where i counts along an axis."""

    axis: int
    start: int
    stride: int
    factor: int
    end: int  # one past the last index


def _axes_of(indices: np.ndarray) -> set[int]:
    """Returns the axes along which indices vary."""
    return {a for a in range(indices.ndim) if np.ptp(indices, axis=a).any()}


def _evenly_spaced(indices: np.ndarray | None, part: int) -> _Line | None:
    """Describes `indices[..., part]`; None where they are not evenly spaced, or where
    some are repeated, but not all from the first position on."""
    if indices is None or len(axes := _axes_of(indices[..., part])) != 1:
        return None
    (axis,) = axes
    moved = np.moveaxis(indices[..., part], axis, 0)
    values = moved.reshape(len(moved), -1)[:, 0].astype(int)
    factor = int(np.argmax(values != values[0]))
    start, stride = int(values[0]), int(values[factor] - values[0])
    even = (values == start + stride * (np.arange(len(values)) // factor)).all()
    repeats_all = (start, stride, len(values) % factor) == (0, 1, 0)
    if start < 0 or stride < 1 or not even or (factor > 1 and not repeats_all):
        return None
    return _Line(axis, start, stride, factor, int(values[-1]) + 1)


def index_digest(constant: Constant) -> int:
    """Digests the indices of a gather, without their number if evenly spaced."""
    if constant.value is None:
        return constant.digest
    indices = constant.value()
    lines = [_evenly_spaced(indices, part) for part in range(indices.shape[-1])]
    known = [line._replace(end=0) for line in lines if line]
    return digest_of(known) if 0 < len(known) == len(lines) else constant.digest
