"""Rules for operations on features of the image, one per primitive of jax.

A rule says where the axes and the field of the feature go, or raises `Refusal` where
positions are mixed or told apart. Channels may be mixed at will. A primitive without a
rule is refused.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from coded_jax.splitting import windows
from coded_jax.splitting.resizes import Rearranged, resize_of
from coded_jax.splitting.traces import (
    Constant,
    Feature,
    Operands,
    Refusal,
    join_ends,
    join_fields,
)
from coded_jax.splitting.windows import ELEMENTWISE, Ends, Window

Rule = Callable[[Any, Operands], Feature]

# Their operands have the same batch, rows and columns on the same axes.
ALIGNED = frozenset("concatenate sort stack".split())
OPAQUE = {
    "cond": "chooses between branches",
    "scan": "is a loop",
    "while": "is a loop",
    "custom_linear_solve": "mixes positions",
    "fft": "mixes positions",
    "pure_callback": "calls code that cannot be looked into",
    "shard_map": "splits its operands itself",
}
LOOPS = frozenset({"scan", "while"})  # of `map` and `fori_loop`, too
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Registers a rule for the primitives of these names, with spaces between them."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(" ".join(names).split(), function))
        return function

    return register


def through_features(eqn: Any, traces: Operands) -> Feature:
    """Returns the trace of all results of an equation, of which operands are features.

    Its digest is left to the caller.

    Raises:
      Refusal: the operation cannot be split.
    """
    name = eqn.primitive.name
    if name not in RULES:
        raise Refusal(OPAQUE.get(name, "is none of those that can be analysed"))
    return RULES[name](eqn, traces)


@rule(*ELEMENTWISE)
def _join(eqn: Any, traces: Operands) -> Feature:
    """Joins operands of one shape, or scalars, position by position."""
    features = [t for t in traces if isinstance(t, Feature)]
    axes = features[0].axes
    if len({f.axes for f in features}) > 1:
        raise Refusal("joins features with rows and columns on different axes")
    rows, columns = map(join_fields, zip(*(f.fields for f in features), strict=True))
    of_rows, of_columns = map(join_ends, zip(*(f.ends for f in features), strict=True))
    for axis, name, ends in zip(
        axes, ("batch", "rows", "columns"), ((0, 0), of_rows, of_columns), strict=True
    ):
        for constant in traces:
            if isinstance(constant, Constant):
                _require_constant_along(name, constant.ends.get(axis, (0, 0)), ends)
    return Feature(axes, (rows, columns), (of_rows, of_columns))


def _require_constant_along(name: str, ends: Ends, of_features: Ends) -> None:
    """Refuses a constant that is not the same where features are far from padding.

    As the padding of an average is left out of the count just where it is left out of
    the sum: what padding has had a part in, a piece has right at the same places only.
    """
    if any(own > most for own, most in zip(ends, of_features, strict=True)):
        raise Refusal(
            f"joins the image with a constant that varies along the {name} (position "
            "embedding, mask, random numbers), or went through more padding"
        )


def _sole_feature(traces: Operands, what: str = "a second operand") -> Feature:
    """Returns the first operand, which alone may depend on the image.

    Raises:
      Refusal: it does not, or another one does; `what` says which in the message.
    """
    first, *others = traces
    if not isinstance(first, Feature) or any(isinstance(t, Feature) for t in others):
        raise Refusal(f"has {what} that depends on the image")
    return first


def _join_reduced(eqn: Any, traces: Operands) -> Feature:
    """Joins the operands of a reduction, which has as many results.

    Further operands are its initial values, and constants.
    """
    count = len(eqn.outvars)
    if not all(isinstance(t, Feature) == (i < count) for i, t in enumerate(traces)):
        raise Refusal("takes a constant together with the image")
    return _join(eqn, traces[:count])


def _axis_names(feature: Feature, axes: set[int]) -> str:
    """Names axes of the array for messages: as "rows and columns"."""
    kinds = ("batch", "rows", "columns")
    held = [n for n, axis in zip(kinds, feature.axes, strict=True) if axis in axes]
    return " and ".join(held)


REDUCTIONS = (
    "argmax argmin reduce reduce_and reduce_max reduce_min reduce_or reduce_prod "
    "reduce_sum reduce_xor".split()
)
GONE = {
    "broadcast_in_dim": "repeats {} (edge padding, upsampling)",
    "tile": "repeats {} (edge padding, upsampling)",
    "squeeze": "drops {}",
    "unstack": "drops {}",
    **dict.fromkeys(
        REDUCTIONS, "reduces over all {} (global pooling, or a norm over positions)"
    ),
}
"""Stands for the refusal of an operation whose result has no place for an axis of its
operand."""


@rule("stack", *GONE)
def _move_axes(eqn: Any, traces: Operands) -> Feature:
    name = eqn.primitive.name
    join = _join if name == "stack" else _join_reduced
    feature, to = join(eqn, traces), windows.axes_after(eqn)
    lost = set(feature.axes) - set(to)
    if feature.axes[0] in lost and name in REDUCTIONS:
        raise Refusal("reduces over the batch (batch norm in training mode?)")
    if lost:
        raise Refusal(GONE[name].format(_axis_names(feature, lost)))
    return feature.remap_axes(to)


@rule("transpose")
def _transpose(eqn: Any, traces: Operands) -> Feature:
    feature = _sole_feature(traces)
    own = Rearranged(eqn.params["permutation"])
    return dataclasses.replace(feature.remap_axes(windows.axes_after(eqn)), own=own)


@rule("reshape")
def _reshape(eqn: Any, traces: Operands) -> Feature:
    """Keeps rows and columns; or makes channels of them, or them of channels, where
    each new position has the channels of one, or the other way round."""
    feature = _sole_feature(traces)
    before, after = eqn.invars[0].aval.shape, eqn.outvars[0].aval.shape
    to = windows.axes_after(eqn)
    lost, begins = set(feature.axes) - set(to), windows.begins_of_reshape(before, after)
    along = {}
    for axis in lost:
        size, new_size = before[axis], after[begins[axis]] if axis in begins else 0
        if (
            axis == feature.axes[0]
            or not new_size
            or max(size, new_size) % min(size, new_size)
        ):
            names = _axis_names(feature, lost)
            raise Refusal(f"merges or splits {names} (flatten, patches)")
        block = size // new_size
        along[axis] = Window(size, kernel=block, stride=block)
        if new_size > size:
            along[axis] = windows.repeated(size, new_size // size)
    return feature.through(along, begins | to)


@rule("concatenate cumlogsumexp cummax cummin cumprod cumsum rev sort split top_k")
def _along_channels(eqn: Any, traces: Operands) -> Feature:
    feature, params = _join(eqn, traces), eqn.params
    last = len(eqn.invars[0].aval.shape) - 1
    keys = ("dimensions", "dimension", "axis", "axes")
    axes = next((params[key] for key in keys if key in params), last)
    if held := _axis_names(feature, set(np.atleast_1d(axes).tolist())):
        hints = {"rev": "reflect padding?", "concatenate": "wrap or edge padding?"}
        hint = hints.get(eqn.primitive.name, "which mixes positions")
        raise Refusal(f"works along {held} ({hint})")
    return feature


@rule("dot_general")
def _dot(eqn: Any, traces: Operands) -> Feature:
    if all(isinstance(t, Feature) for t in traces):
        raise Refusal("multiplies two features of the image (attention)")
    which = 0 if isinstance(traces[0], Feature) else 1
    feature, constant = traces[which], traces[1 - which]
    assert isinstance(feature, Feature) and isinstance(constant, Constant)
    contracted, batched = eqn.params["dimension_numbers"]
    # Output: batch axes, then the free axes of the left, then those of the right.
    free = [
        [a for a in range(v.aval.ndim) if a not in (*contracted[i], *batched[i])]
        for i, v in enumerate(eqn.invars)
    ]
    begin = len(batched[0]) + (len(free[0]) if which else 0)
    to = {axis: i for i, axis in enumerate(batched[which])}
    to.update((axis, begin + i) for i, axis in enumerate(free[which]))
    partners = dict(zip(batched[which], batched[1 - which], strict=True))
    if any(partners.get(axis) in constant.ends for axis in feature.axes):
        raise Refusal("multiplies each position by a weight of its own")
    if held := _axis_names(feature, set(contracted[which])):
        matrix = None
        if sum(map(len, (*contracted, *batched, free[1 - which]))) == 3:
            matrix = constant.value()
        (axis, *_), (into, *_) = contracted[which], contracted[1 - which]
        resize = None if matrix is None else resize_of(np.moveaxis(matrix, into, 0))
        if resize is None or axis == feature.axes[0]:
            raise Refusal(
                f"sums over {held} (a dense layer over positions, or a resize)"
            )
        to[axis] = 0 if which else len(free[0])
        order = tuple(sorted(to, key=to.__getitem__))
        own = Rearranged(order, feature.axes[1:].index(axis), resize)
        resized = feature.through({axis: resize.window}, to)
        return dataclasses.replace(resized, own=own)
    return feature.remap_axes(to)


@rule("conv_general_dilated pad reduce_window reduce_window_max reduce_window_min")
@rule("reduce_window_sum slice")
def _move_window(eqn: Any, traces: Operands) -> Feature:
    name, params = eqn.primitive.name, eqn.params
    to, windows_along = windows.windows_of_operation(eqn)
    if name == "conv_general_dilated":
        feature, numbers = (
            _sole_feature(traces, "a kernel"),
            params["dimension_numbers"],
        )
        batch, channels, *_ = numbers.lhs_spec
        grouped = params["batch_group_count"] != 1
        if feature.axes[0] != batch or channels in feature.axes or grouped:
            raise Refusal("takes rows, columns or batch for channels")
    else:
        feature = _join_reduced(eqn, traces)
        if any(windows_along[feature.axes[0]].steps()):
            raise Refusal("has a window or padding over the batch, or takes a part")
    return feature.through(windows_along, to)


@rule("dynamic_slice")
def _dynamic_slice(eqn: Any, traces: Operands) -> Feature:
    feature, sizes = _sole_feature(traces, "an index"), eqn.params["slice_sizes"]
    cut = {a for a in feature.axes if sizes[a] != eqn.invars[0].aval.shape[a]}
    if cut:
        names = _axis_names(feature, cut)
        raise Refusal(f"takes a part of {names} by computed indices")
    return feature


@rule("gather")
def _gather(eqn: Any, traces: Operands) -> Feature:
    """Takes channels; or rows and columns by indices that repeat all of them, or are
    evenly spaced, as before jax 0.8 those of `x[:, ::2, ::2]`."""
    feature, numbers = (
        _sole_feature(traces, "an index"),
        eqn.params["dimension_numbers"],
    )
    shape, sizes = eqn.invars[0].aval.shape, eqn.params["slice_sizes"]
    gone = {*numbers.collapsed_slice_dims, *numbers.operand_batching_dims}
    kept = [axis for axis in range(len(shape)) if axis not in gone]
    to = dict(zip(kept, numbers.offset_dims, strict=True))
    indexed = {axis for axis in feature.axes if sizes[axis] != shape[axis]}
    if set(feature.axes) - set(to) - indexed:
        raise Refusal("drops rows or columns, or takes a diagonal")
    if not indexed:
        return feature.remap_axes(to)
    constant, refusal = traces[1], f"indexes {_axis_names(feature, indexed)} (resize?)"
    assert isinstance(constant, Constant)
    indices = constant.value()
    possible = {*feature.axes[1:]} & {*numbers.start_index_map} - set(to)
    if indices is None or numbers.operand_batching_dims or indexed - possible:
        raise Refusal(refusal)
    # What is left of the axes of the indices, but the last, fills the other axes.
    places = [
        a for a in range(eqn.outvars[0].aval.ndim) if a not in numbers.offset_dims
    ]
    along, taken = {}, []
    for number, axis in enumerate(numbers.start_index_map):
        part = indices[..., number].astype(int)
        varying = [i for i in range(part.ndim) if np.ptp(part, axis=i).any()]
        taken += varying
        if axis in indexed:
            window = None
            if len(varying) == 1:
                line = np.moveaxis(part, varying[0], -1)
                line = line.reshape(-1, line.shape[-1])[0]
                window = _window_of_indices(line, shape[axis])
            if window is None:
                raise Refusal(refusal)
            to[axis], along[axis] = places[varying[0]], window
    if len(set(taken)) < len(taken):
        raise Refusal("takes a diagonal over rows, columns or channels")
    if len(along) == len(numbers.start_index_map):  # no channels besides
        own = [(axis, window[1:]) for axis, window in along.items()]
        feature = dataclasses.replace(feature, own=own)
    return feature.through(along, to)


def _window_of_indices(line: np.ndarray, size: int) -> Window | None:
    """Returns the window that takes evenly spaced positions, or repeats all of them;
    None if other ones are taken."""
    factor = len(line) // size
    if factor > 1 and np.array_equal(line, np.repeat(np.arange(size), factor)):
        return windows.repeated(size, factor)
    start, last = int(line[0]), int(line[-1])
    strides = set(np.diff(line).tolist())
    if len(strides) != 1 or min(strides) < 1 or start < 0 or last >= size:
        return None
    (stride,) = strides
    # A stride may skip some positions at the end, as a slice would.
    high = min(0, last + stride - size)
    return Window(size, stride=stride, low=-start, high=high)
