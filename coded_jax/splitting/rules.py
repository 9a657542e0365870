"""Rules for operations on features of the image, one per primitive of jax.

A rule says where the axes and the field of the feature go, or raises `Refusal` where
positions are mixed or told apart. Channels may be mixed at will. A primitive without a
rule is refused. These see one position at a time; `window_rules` has the others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from coded_jax.splitting.constants import (
    ELEMENTWISE,
    axes_after,
    regrouped,
)
from coded_jax.splitting.resizes import resize_of
from coded_jax.splitting.traces import (
    Constant,
    Feature,
    Operands,
    Refusal,
    Window,
    join_fields,
    repeated,
    windows,
)

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
def join_features(eqn: Any, traces: Operands) -> Feature:
    """Joins operands of one shape, or scalars, position by position."""
    features = [t for t in traces if isinstance(t, Feature)]
    first = features[0]
    if len({f.axes for f in features}) > 1:
        raise Refusal("joins features with rows and columns on different axes")
    constants = [t for t in traces if isinstance(t, Constant)]
    for axis, name, last in zip(
        first.axes, ("batch", "rows", "columns"), (None, *first.last), strict=True
    ):
        if any(axis in constant.varying for constant in constants):
            raise Refusal(
                f"joins the image with a constant that varies along the {name} "
                "(position embedding, mask, random numbers)"
            )
        # The padding of an average is left out of the count just where it is left out
        # of the sum, in a piece as in the image, but only if the windows are the same.
        if any(constant.border.get(axis, last) != last for constant in constants):
            raise Refusal(
                f"joins the image with a constant that varies at the borders of the "
                f"{name}, since it went through padding that the image did not"
            )
    rows, columns = map(join_fields, zip(*(f.fields for f in features), strict=True))
    last_rows, last_columns = (
        own if all(f.last[i] == own for f in features) else None
        for i, own in enumerate(first.last)
    )
    return Feature(first.axes, (rows, columns), (last_rows, last_columns))


def sole_feature(traces: Operands, what: str = "a second operand") -> Feature:
    """Returns the first operand, which alone may depend on the image.

    Raises:
      Refusal: it does not, or another one does; `what` says which in the message.
    """
    first, *others = traces
    if not isinstance(first, Feature) or any(isinstance(t, Feature) for t in others):
        raise Refusal(f"has {what} that depends on the image")
    return first


def join_reduced(eqn: Any, traces: Operands) -> Feature:
    """Joins the operands of a reduction, which has as many results.

    Further operands are its initial values, and constants.
    """
    count = len(eqn.outvars)
    if not all(isinstance(t, Feature) == (i < count) for i, t in enumerate(traces)):
        raise Refusal("takes a constant together with the image")
    return join_features(eqn, traces[:count])


def axis_names(feature: Feature, axes: set[int]) -> str:
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


@rule("stack", "transpose", *GONE)
def _move_axes(eqn: Any, traces: Operands) -> Feature:
    name = eqn.primitive.name
    join = join_features if name == "stack" else join_reduced
    feature, to = join(eqn, traces), axes_after(eqn)
    lost = set(feature.axes) - set(to)
    if feature.axes[0] in lost and name in REDUCTIONS:
        raise Refusal("reduces over the batch (batch norm in training mode?)")
    if lost:
        raise Refusal(GONE[name].format(axis_names(feature, lost)))
    return feature.remap_axes(to)


@rule("reshape")
def _reshape(eqn: Any, traces: Operands) -> Feature:
    """Keeps rows and columns; or makes channels of them, or them of channels, where
    each new position has the channels of one, or the other way round."""
    feature = sole_feature(traces)
    before, after = eqn.invars[0].aval.shape, eqn.outvars[0].aval.shape
    if before == after:
        return feature
    to = axes_after(eqn)
    steps: dict[int, list[Window]] = {axis: [] for axis in feature.axes}
    lost = set(feature.axes) - set(to)
    for axis in lost:
        size, new_size = before[axis], 0
        for old, new in regrouped(before, after):
            if axis == old[0] and len({*old} & {*feature.axes}) == 1:
                to[axis], new_size = new[0], after[new[0]]
        if (
            axis == feature.axes[0]
            or not new_size
            or max(size, new_size) % min(size, new_size)
        ):
            names = axis_names(feature, lost)
            raise Refusal(f"merges or splits {names} (flatten, patches)")
        if new_size > size:
            steps[axis] = repeated(size, new_size // size)
        else:
            block = size // new_size
            steps[axis] = windows(size, block, block)
    feature = feature.through(steps[feature.axes[1]], steps[feature.axes[2]])
    return feature.remap_axes(to)


@rule("concatenate cumlogsumexp cummax cummin cumprod cumsum rev sort split top_k")
def _along_channels(eqn: Any, traces: Operands) -> Feature:
    feature, params = join_features(eqn, traces), eqn.params
    last = len(eqn.invars[0].aval.shape) - 1
    keys = ("dimensions", "dimension", "axis", "axes")
    axes = next((params[key] for key in keys if key in params), last)
    held = axis_names(feature, set(np.atleast_1d(axes).tolist()))
    if held:
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
    if resize := resize_of(eqn, traces):
        steps = [resize.steps if a == resize.axis else [] for a in feature.axes]
        to = {axis: i for i, axis in enumerate(resize.order)}
        return feature.through(*steps[1:]).remap_axes(to)
    mixed = axis_names(feature, set(contracted[which]))
    if mixed:
        raise Refusal(f"sums over {mixed} (a dense layer over positions, or a resize)")
    partners = dict(zip(batched[which], batched[1 - which], strict=True))
    for axis in feature.axes:
        if partners.get(axis) in constant.varying | set(constant.border):
            raise Refusal("multiplies each position by a weight of its own")
    # Output: batch axes, then the free axes of the left, then those of the right.
    free = [
        [a for a in range(len(v.aval.shape)) if a not in (*contracted[i], *batched[i])]
        for i, v in enumerate(eqn.invars)
    ]
    before = len(batched[0]) + (len(free[0]) if which else 0)
    to = {axis: i for i, axis in enumerate(batched[which])}
    to.update((axis, before + i) for i, axis in enumerate(free[which]))
    return feature.remap_axes(to)
