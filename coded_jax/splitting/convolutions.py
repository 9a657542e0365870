"""Every convolution of a network by itself, between parts that the client computes.

A convolution without its bias is linear, so that linear codes are exact for it,
whatever the network; what stands between two of them, as bias, ReLU, pooling and sums
of residuals, is not. So a network becomes a chain of parts that alternate:

    client       everything up to the next convolution, and the padding of its input
    devices      the convolution on each of the pieces, without any padding
    client       everything up to the one after it, ...
    ...
    client       the rest, up to the features

Convolutions that read the same value, as the first of a residual block and the one in
its shortcut, are computed in one round, their outputs one behind the other along the
channels. All pieces are computed alike: where the output has no equal shares, the
client pads the input for as many rows and columns as it takes, and crops the output.
What a later part needs too the client keeps meanwhile, see `types.State`.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from coded_jax.splitting.flattening import (
    Flat,
    Values,
    flatten,
    needed,
    read,
    run,
    variables_among,
)
from coded_jax.types import (
    AxisPlan,
    Block,
    PyTree,
    SplitPlan,
    State,
    apart,
    together,
)


def separate_convolutions(
    f_conv: Block,
    variables: PyTree,
    image_shape: tuple[int, int, int],
    k: int,
    least_spared: float = 0.0,
) -> tuple[tuple[Block, ...], tuple[SplitPlan, ...]]:
    """Takes a network apart at its convolutions.

    A convolution stays with the client if no device would have less to compute than
    the whole of it, as with an output of one position, if it is in a branch or a loop,
    or if its kernel depends on the image. It also stays there if it spares a device too
    little, since a round costs time, too (CoCoI, 2025, leaves small ones there).

    Args:
      f_conv: the network, `(variables, [B, H, W, C]) -> [B, M*, M'*, D]`.
      variables: arrays or shapes (`jax.ShapeDtypeStruct`).
      image_shape: `(H, W, C)`.
      k: data pieces.
      least_spared: what a device must be spared by a round, see `spared_parts`.

    Returns:
      Blocks that compute the same, and a plan for each round of convolutions. Block
      `2 i`, counted from 1, is that of plan `i`; all others are the client's.

    Raises:
      ValueError: there is no convolution that can be computed in k pieces, or none that
        spares a device so much.
    """
    network = _Network(functools.partial(f_conv), image_shape, k, least_spared)
    rounds = _parts_of(network, variables).rounds
    if not rounds:
        if spared := spared_parts(f_conv, variables, image_shape, k):
            most = rounded_down(spared[0])
            raise ValueError(
                f"least_spared: {least_spared} given, at most {most} accepted for this "
                f"network with k={k}"
            )
        raise ValueError(
            f"split: 'convolution' given, image or group accepted for a network "
            f"without a convolution of which one of k={k} pieces is less work"
        )
    blocks: list[Block] = [functools.partial(_compute_client, network, 0)]
    for i in range(len(rounds)):
        blocks.append(functools.partial(_compute_convolutions, network, i))
        blocks.append(functools.partial(_compute_client, network, i + 1))
    return tuple(blocks), tuple(r.plan for r in rounds)


def spared_parts(
    f_conv: Block, variables: PyTree, image_shape: tuple[int, int, int], k: int
) -> tuple[float, ...]:
    """Returns the work that every round spares a device, the most first.

    That is the part of a convolution that is not in its piece, over the operations of
    all convolutions that could be cut.

    Args:
      f_conv, variables, image_shape, k: as of `separate_convolutions`.
    """
    network = _Network(functools.partial(f_conv), image_shape, k, 0.0)
    rounds = _parts_of(network, variables).rounds
    return tuple(sorted((r.spared for r in rounds), reverse=True))


def rounded_down(part: float) -> float:
    """Returns a part that is no larger, of four decimals."""
    return math.floor(part * 1e4) / 1e4


@dataclasses.dataclass(frozen=True, eq=False)
class _Network:
    """A network to be taken apart: one object for all parts, equal to itself alone.

    It holds no jaxpr, so that it can be sent to other processes.

    Attributes:
      f_conv: see `separate_convolutions`; an object of its own, so that no other
        network finds its traces.
      image_shape: `(H, W, C)`.
      k: data pieces.
      least_spared: see `separate_convolutions`.
    """

    f_conv: Block
    image_shape: tuple[int, int, int]
    k: int
    least_spared: float


class _Axis(NamedTuple):
    """A convolution along rows or columns.

    Attributes:
      size: inputs, the zeros between those of a transposed convolution included.
      out: outputs.
      reach: inputs from the first to the last that an output needs.
      stride: inputs between neighbouring outputs.
      low: zeros before the first input; negative where it is cropped.
      interior: zeros between neighbouring inputs.
    """

    size: int
    out: int
    reach: int
    stride: int
    low: int
    interior: int

    def plan(self, parts: int) -> AxisPlan:
        """Plans equal shares, of an input that is padded for them."""
        share = -(-self.out // parts)
        first, out = share * self.stride, parts * share
        size, window = (
            (outputs - 1) * self.stride + self.reach for outputs in (out, share)
        )
        starts = tuple(range(0, parts * first, first))
        return AxisPlan(size, window, starts, out, share, (0,) * parts, self.stride)


class _Round(NamedTuple):
    """Convolutions of one value, with the same strides and sizes of outputs.

    Attributes:
      eqns: the equations.
      axes: rows and columns of each of them.
      joint: those of a convolution that needs what all of them need.
      plan: how their common input is split.
      spared: what it spares a device, see `spared_parts`.
    """

    eqns: tuple[Any, ...]
    axes: tuple[tuple[_Axis, _Axis], ...]
    joint: tuple[_Axis, _Axis]
    plan: SplitPlan
    spared: float

    @property
    def source(self) -> Any:
        """The variable that all of them read."""
        return self.eqns[0].invars[0]

    def pad(self, x: jax.Array) -> jax.Array:
        """Returns the input that the plan splits, of the value that is convolved."""
        spec = self.eqns[0].params["dimension_numbers"].lhs_spec
        sizes = (self.plan.rows.size, self.plan.columns.size)
        rows, columns = (
            (axis.low, size - axis.size - axis.low, axis.interior)
            for axis, size in zip(self.joint, sizes, strict=True)
        )
        x = lax.transpose(x, (spec[0], *spec[2:], spec[1]))
        return lax.pad(x, np.zeros((), x.dtype), ((0, 0, 0), rows, columns, (0, 0, 0)))

    def convolve(self, x: jax.Array, weights: Values) -> jax.Array:
        """Computes the convolutions of a piece, or of the whole input.

        Args:
          x: `[B, h, w, C]`.
          weights: values of the kernels.

        Returns:
          `[B, M, M', D]`, with the channels of all of them.
        """
        outputs = []
        for eqn, axes in zip(self.eqns, self.axes, strict=True):
            y = x
            for i, (own, joint) in enumerate(zip(axes, self.joint, strict=True)):
                first = joint.low - own.low
                end = x.shape[1 + i] - joint.reach + first + own.reach
                y = lax.slice_in_dim(y, first, end, axis=1 + i)
            outputs.append(_convolve(eqn, y, read(eqn.invars[1], weights)))
        return jnp.concatenate(outputs, axis=-1) if len(outputs) > 1 else outputs[0]

    def outputs(self, merged: jax.Array) -> Iterator[tuple[Any, jax.Array]]:
        """Yields the variable and the value of each convolution's output."""
        rows, columns = self.joint
        merged, first = merged[:, : rows.out, : columns.out], 0
        for eqn in self.eqns:
            spec, (out,) = eqn.params["dimension_numbers"].out_spec, eqn.outvars
            last = first + out.aval.shape[spec[1]]
            places = (spec[0], *spec[2:], spec[1])  # of the axes of `merged`
            order = [places.index(axis) for axis in range(4)]
            yield out, lax.transpose(merged[..., first:last], order)
            first = last


def _convolve(eqn: Any, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Computes a convolution of `[B, h, w, C]`, all of whose windows are within."""
    p = eqn.params
    out, into, *positions = p["dimension_numbers"].rhs_spec
    return lax.conv_general_dilated(
        x,
        lax.transpose(kernel, (*positions, into, out)),
        p["window_strides"],
        "VALID",
        rhs_dilation=p["rhs_dilation"],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=p["feature_group_count"],
        precision=p["precision"],
        preferred_element_type=p["preferred_element_type"],
    )


class _Part(NamedTuple):
    """A part that the client computes.

    Attributes:
      eqns: whose results depend on the image.
      weights: whose results depend on the variables alone, as far as it needs them.
      kept: variables that later parts need.
    """

    eqns: list[Any]
    weights: list[Any]
    kept: list[Any]


class _Parts(NamedTuple):
    """A network taken apart.

    Attributes:
      flat: its operations.
      rounds: of convolutions.
      kernels: for each round, the equations that make its kernels.
      clients: the parts before, between and behind the rounds.
    """

    flat: Flat
    rounds: list[_Round]
    kernels: list[list[Any]]
    clients: list[_Part]


def _compute_convolutions(
    network: _Network, index: int, variables: PyTree, state: State
) -> State:
    """Computes a round on a piece; or on its whole input, with what is kept beside."""
    x, kept = apart(state)
    parts = _parts_of(
        network, variables, dtype=x.dtype
    )  # for kernels any batch will do
    values = parts.flat.constants(jax.tree.leaves(variables))
    run(parts.kernels[index], values)
    return together(parts.rounds[index].convolve(x, values), kept)


def _compute_client(
    network: _Network, index: int, variables: PyTree, state: State
) -> State:
    """Computes the client's part before round `index`, or behind the last one."""
    x, kept = apart(state)
    parts = _parts_of(network, variables, x.shape[0], x.dtype)
    part = parts.clients[index]
    values = parts.flat.constants(jax.tree.leaves(variables))
    if index == 0:
        values[parts.flat.image] = x
    else:
        values.update(parts.rounds[index - 1].outputs(x))
        values.update(zip(parts.clients[index - 1].kept, kept, strict=True))
    run([*part.weights, *part.eqns], values)
    if index == len(parts.rounds):
        return values[parts.flat.results[0]]
    following = parts.rounds[index]
    padded = following.pad(values[following.source])
    return together(padded, tuple(values[v] for v in part.kept))


def _parts_of(network: _Network, variables: PyTree, *form: Any, **more: Any) -> _Parts:
    """Takes a network apart; the form of the images is that of `flatten`."""
    flat = flatten(network.f_conv, variables, network.image_shape, *form, **more)
    return _take_apart(network, flat)


@functools.lru_cache(maxsize=64)
def _take_apart(network: _Network, flat: Flat) -> _Parts:
    image = flat.image.aval
    varying = {flat.image, *(v for eqn in flat.dynamic for v in eqn.outvars)}

    def is_separate(eqn: Any) -> bool:
        of_image = _is_separate(eqn, image.shape[0], image.dtype)
        return of_image and eqn.invars[1] not in varying

    rounds = _rounds(network, filter(is_separate, flat.dynamic))
    kernels = [needed(flat.constant, [e.invars[1] for e in r.eqns]) for r in rounds]
    return _Parts(flat, rounds, kernels, _clients(flat, rounds))


def _is_separate(eqn: Any, batch: Any, dtype: jnp.dtype) -> bool:
    """Returns whether an operation is a convolution of images of that dtype."""
    if eqn.primitive.name != "conv_general_dilated":
        return False
    image, kernel, out = (v.aval for v in (*eqn.invars, *eqn.outvars))
    spec = eqn.params["dimension_numbers"].lhs_spec
    return (
        len(spec) == 4
        and eqn.params["batch_group_count"] == 1
        and image.shape[spec[0]] == batch
        and {image.dtype, kernel.dtype, out.dtype} == {dtype}
    )


def _rounds(network: _Network, convolutions: Iterable[Any]) -> list[_Round]:
    """Groups convolutions that can be computed in one round, plans their pieces, and
    returns those of which a device is spared enough."""
    k, spared, total = network.k, [], 0  # of the products of an image
    groups: dict[Any, list[Any]] = {}
    for eqn in convolutions:
        numbers, axes = eqn.params["dimension_numbers"], _axes_of(eqn)
        alike = [(axis.size, axis.out, axis.stride, axis.interior) for axis in axes]
        groups.setdefault((eqn.invars[0], numbers.lhs_spec, *alike), []).append(eqn)
    rounds = []
    for eqns in groups.values():
        axes = tuple(map(_axes_of, eqns))
        rows, columns = map(_joint, zip(*axes, strict=True))
        source, spec = eqns[0].invars[0], eqns[0].params["dimension_numbers"].lhs_spec
        maps = [
            e.outvars[0].aval.shape[e.params["dimension_numbers"].out_spec[1]]
            for e in eqns
        ]
        channels = (source.aval.shape[spec[1]], sum(maps))
        plan = min(
            (
                SplitPlan(rows.plan(k // parts), columns.plan(parts), *channels)
                for parts in range(1, k + 1)
                if k % parts == 0
            ),
            key=_work,
        )
        products = sum(math.prod(e.invars[1].aval.shape) for e in eqns)  # a position's
        positions = rows.out * columns.out
        total += products * positions
        spared.append(products * max(0, positions - _work(plan)[0]))
        rounds.append(_Round(tuple(eqns), axes, (rows, columns), plan, 0.0))
    parts = (s / total for s in spared)
    rounds = [r._replace(spared=x) for r, x in zip(rounds, parts, strict=True)]
    return [r for r in rounds if r.spared > 0 and r.spared >= network.least_spared]


def _work(plan: SplitPlan) -> tuple[int, int]:
    """Returns the positions that a device computes, and those that it is sent."""
    return (
        plan.rows.share * plan.columns.share,
        plan.rows.window * plan.columns.window,
    )


def _axes_of(eqn: Any) -> tuple[_Axis, _Axis]:
    """Returns a convolution along rows and along columns."""
    p, numbers = eqn.params, eqn.params["dimension_numbers"]
    image, kernel, out = (v.aval.shape for v in (*eqn.invars, *eqn.outvars))

    def along(i: int) -> _Axis:
        gap = p["lhs_dilation"][i]
        return _Axis(
            size=(image[numbers.lhs_spec[2 + i]] - 1) * gap + 1,
            out=out[numbers.out_spec[2 + i]],
            reach=(kernel[numbers.rhs_spec[2 + i]] - 1) * p["rhs_dilation"][i] + 1,
            stride=p["window_strides"][i],
            low=p["padding"][i][0],
            interior=gap - 1,
        )

    return along(0), along(1)


def _joint(axes: Sequence[_Axis]) -> _Axis:
    """Returns the convolution that needs all inputs which some need for an output."""
    low = max(axis.low for axis in axes)
    reach = max(low - axis.low + axis.reach for axis in axes)
    return axes[0]._replace(low=low, reach=reach)


def _clients(flat: Flat, rounds: list[_Round]) -> list[_Part]:
    """Gives every other operation to the first part that needs its result."""
    distributed = {id(eqn) for r in rounds for eqn in r.eqns}
    left = [eqn for eqn in flat.dynamic if id(eqn) not in distributed]
    goals = [*([r.source] for r in rounds), flat.results]
    own = []
    for goal in goals:
        own.append(needed(left, goal))
        taken = set(map(id, own[-1]))
        left = [eqn for eqn in left if id(eqn) not in taken]
    reads = [
        variables_among([*goal, *(v for eqn in eqns for v in eqn.invars)])
        for goal, eqns in zip(goals, own, strict=True)
    ]
    there, parts = {flat.image: None}, []  # in their order
    for i, eqns in enumerate(own):
        there |= dict.fromkeys(v for eqn in eqns for v in eqn.outvars)
        later = set[Any]().union(*reads[i + 1 :])
        kept = [v for v in there if v in later]
        parts.append(_Part(eqns, needed(flat.constant, reads[i]), kept))
        if i < len(rounds):
            there |= dict.fromkeys(v for eqn in rounds[i].eqns for v in eqn.outvars)
    return parts
