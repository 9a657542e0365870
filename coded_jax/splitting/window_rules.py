"""Rules for operations on features of the image that see or take several positions.

Convolutions, pooling, padding, slices, and the indexing that is a slice in disguise.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from coded_jax.splitting.constants import windows_of_operation
from coded_jax.splitting.rules import (
    Operands,
    axis_names,
    join_reduced,
    rule,
    sole_feature,
)
from coded_jax.splitting.traces import (
    Constant,
    Feature,
    Refusal,
    Window,
    digest_of,
    repeated,
    windows,
)


@rule("conv_general_dilated")
def _convolution(eqn: Any, traces: Operands) -> Feature:
    feature, params = sole_feature(traces, "a kernel"), eqn.params
    numbers = params["dimension_numbers"]
    batch, channels, *_ = numbers.lhs_spec
    if feature.axes[0] != batch or channels in feature.axes:
        raise Refusal("takes rows, columns or batch for channels")
    if params["batch_group_count"] != 1:
        raise Refusal("groups the batch")
    result = _through_windows(eqn, feature)
    return dataclasses.replace(result, axes=(numbers.out_spec[0], *result.axes[1:]))


@rule(
    "reduce_window",
    "reduce_window_max",
    "reduce_window_min",
    "reduce_window_sum",
    "pad",
)
def _pool(eqn: Any, traces: Operands) -> Feature:
    feature = join_reduced(eqn, traces)
    if windows_of_operation(eqn)[feature.axes[0]][1]:
        raise Refusal("has a window or padding over the batch")
    return _through_windows(eqn, feature)


def _through_windows(eqn: Any, feature: Feature) -> Feature:
    batch, rows, columns = feature.axes
    steps = windows_of_operation(eqn)
    result = feature.through(steps[rows][1], steps[columns][1])
    return dataclasses.replace(result, axes=(batch, steps[rows][0], steps[columns][0]))


@rule("slice")
def _slice(eqn: Any, traces: Operands) -> Feature:
    feature, params = sole_feature(traces), eqn.params
    sizes = eqn.invars[0].aval.shape
    strides = params["strides"] or (1,) * len(sizes)

    def steps(axis: int) -> list[Window]:
        start, limit = params["start_indices"][axis], params["limit_indices"][axis]
        crop = windows(sizes[axis], padding=(-start, limit - sizes[axis]))
        return crop + windows(limit - start, stride=strides[axis])

    batch, rows, columns = map(steps, feature.axes)
    if batch:
        raise Refusal("takes a part of the batch (edge padding?)")
    return feature.through(rows, columns)


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
    sizes, shape = eqn.params["slice_sizes"], eqn.invars[0].aval.shape
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
        indices = traces[1].at_hand() if isinstance(traces[1], Constant) else None
        part = numbers.start_index_map.index(axis)
        repeats = _repeats(indices, part, shape[axis])
        if repeats and axis not in to:
            to[axis], steps[axis] = (
                places[repeats[0]],
                repeated(shape[axis], repeats[1]),
            )
            continue
        progression = _progression(indices, part)
        # One more than there are, which is refused below, for all other indices.
        place, start, stride, count = progression or (0, 0, 1, shape[axis] + 1)
        end = start + (count - 1) * stride + 1
        if axis in to or end > shape[axis]:
            raise Refusal(f"indexes {axis_names(feature, {axis})} (resize?)")
        to[axis] = places[place]
        # A stride may skip some positions at the end, as a slice would.
        spare = min(stride - 1, shape[axis] - end)
        crop = windows(shape[axis], padding=(-start, end + spare - shape[axis]))
        steps[axis] = crop + windows(end + spare - start, stride=stride)
    if len({to[axis] for axis in feature.axes if axis in to}) < 3:
        raise Refusal("drops rows or columns, or takes a diagonal")
    channels_along = {places[i] for i in _axes_of_channels(eqn, traces)}
    for axis in feature.axes:
        if to[axis] in channels_along:
            held = axis_names(feature, {axis})
            raise Refusal(f"takes a diagonal over {held} and channels")
    feature = feature.through(steps[feature.axes[1]], steps[feature.axes[2]])
    return feature.remap_axes(to)


def _axes_of_channels(eqn: Any, traces: Operands) -> set[int]:
    """Returns the axes of a gather's indices along which other channels are taken."""
    feature, indices = traces
    assert isinstance(feature, Feature) and isinstance(indices, Constant)
    numbers, value = eqn.params["dimension_numbers"], indices.at_hand()
    batching = (numbers.operand_batching_dims, numbers.start_indices_batching_dims)
    axes = {i for axis, i in zip(*batching, strict=True) if axis not in feature.axes}
    for part, axis in enumerate(numbers.start_index_map):
        if axis in feature.axes:
            continue
        if value is None:
            axes |= indices.varying
        else:
            line = np.asarray(value)[..., part]
            axes |= {i for i in range(line.ndim) if np.ptp(line, axis=i).any()}
    return axes - {len(eqn.invars[1].aval.shape) - 1}


def index_digest(indices: Constant) -> int:
    """Digests the indices of a gather, without their number if evenly spaced."""
    value = indices.at_hand()
    patterns = []
    for part in range(0 if value is None else np.shape(value)[-1]):
        pattern = _progression(value, part)
        patterns.append(pattern[:3] if pattern else _repeats(value, part))
    if not patterns or None in patterns:
        return indices.digest
    return digest_of(patterns)


def _repeats(
    indices: Any, part: int, size: int | None = None
) -> tuple[int, int] | None:
    """Finds `indices[..., part] = i // factor`: axis of `i`, factor.

    None where the indices are not so, or not of all positions, `size` of them.
    """
    line = _line(indices, part)
    if line is None:
        return None
    axis, values = line
    count = int(values[-1]) + 1
    factor = len(values) // count if count > 0 else 0
    if count != (size or count) or factor < 2 or len(values) != count * factor:
        return None
    same = (values == np.arange(len(values)) // factor).all()
    return (axis, factor) if same else None


def _line(indices: Any, part: int) -> tuple[int, np.ndarray] | None:
    """Returns the one axis along which `indices[..., part]` varies, and the values."""
    if indices is None:
        return None
    indices = np.asarray(indices)[..., part]
    axes = [a for a in range(indices.ndim) if np.ptp(indices, axis=a).any()]
    if len(axes) != 1:
        return None
    rest = np.moveaxis(indices, axes[0], 0).reshape(indices.shape[axes[0]], -1)
    return axes[0], rest[:, 0]


def _progression(indices: Any, part: int) -> tuple[int, int, int, int] | None:
    """Finds `indices[..., part] = start + stride*i`: axis of `i`, start, stride, count.

    None where the indices are not such a progression.
    """
    found = _line(indices, part)
    if found is None:
        return None
    axis, line = found
    start, stride = int(line[0]), int(line[1] - line[0])
    if start < 0 or stride < 1 or (np.diff(line) != stride).any():
        return None
    return axis, start, stride, len(line)
