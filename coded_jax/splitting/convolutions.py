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
from collections.abc import Sequence
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
    flat = flatten(network.f_conv, variables, image_shape)
    most = max((r.spared for r in _rounds(flat, k)), default=None)
    if most is None:
        raise ValueError(
            f"split: 'convolution' given, image or group accepted for a network "
            f"without a convolution of which one of k={k} pieces is less work"
        )
    if most < least_spared:
        raise ValueError(
            f"least_spared: {least_spared} given, at most {rounded_down(most)} "
            f"accepted for this network with k={k}"
        )
    rounds, _ = _take_apart(network, flat)
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
    flat = flatten(functools.partial(f_conv), variables, image_shape)
    return tuple(sorted((r.spared for r in _rounds(flat, k)), reverse=True))


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
      joint: rows and columns of a convolution that needs what all of them need.
      plan: how their common input is split.
      spared: what it spares a device, see `spared_parts`.
    """

    eqns: tuple[Any, ...]
    joint: tuple[_Axis, _Axis]
    plan: SplitPlan
    spared: float

    def pad(self, values: Values) -> jax.Array:
        """Returns the input that the plan splits, of the value that is convolved."""
        x = read(self.eqns[0].invars[0], values)
        spec = self.eqns[0].params["dimension_numbers"].lhs_spec
        sizes = (self.plan.rows.size, self.plan.columns.size)
        rows, columns = (
            (axis.low, size - axis.size - axis.low, axis.interior)
            for axis, size in zip(self.joint, sizes, strict=True)
        )
        x = lax.transpose(x, (spec[0], *spec[2:], spec[1]))
        return lax.pad(x, np.zeros((), x.dtype), ((0, 0, 0), rows, columns, (0, 0, 0)))

    def convolve(self, x: jax.Array, values: Values) -> jax.Array:
        """Computes the convolutions of a piece, or of the whole input, `[B, h, w, C]`.

        Returns `[B, M, M', D]`, with the channels of all of them. The kernels are among
        `values`.
        """
        outputs = []
        for eqn in self.eqns:
            y, p = x, eqn.params
            for i, (own, joint) in enumerate(zip(_axes(eqn), self.joint, strict=True)):
                first = joint.low - own.low
                end = x.shape[1 + i] - joint.reach + first + own.reach
                y = lax.slice_in_dim(y, first, end, axis=1 + i)
            out, into, *positions = p["dimension_numbers"].rhs_spec
            kernel = read(eqn.invars[1], values)
            z = lax.conv_general_dilated(
                y,
                lax.transpose(kernel, (*positions, into, out)),
                window_strides=p["window_strides"],
                padding="VALID",
                rhs_dilation=p["rhs_dilation"],
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
                feature_group_count=p["feature_group_count"],
                precision=p["precision"],
                preferred_element_type=p["preferred_element_type"],
            )
            outputs.append(z)
        return jnp.concatenate(outputs, axis=-1) if len(outputs) > 1 else outputs[0]

    def outputs(self, merged: jax.Array) -> Values:
        """Returns each convolution's output, by its variable."""
        rows, columns = self.joint
        merged, first, values = merged[:, : rows.out, : columns.out], 0, {}
        for eqn in self.eqns:
            spec, (out,) = eqn.params["dimension_numbers"].out_spec, eqn.outvars
            last = first + out.aval.shape[spec[1]]
            places = (spec[0], *spec[2:], spec[1])  # of the axes of `merged`
            order = [places.index(axis) for axis in range(4)]
            values[out] = lax.transpose(merged[..., first:last], order)
            first = last
        return values


class _Part(NamedTuple):
    """A part that the client computes.

    Attributes:
      eqns: whose results depend on the image.
      reads: variables that these and the next round need.
      kept: variables that later parts need.
    """

    eqns: list[Any]
    reads: set[Any]
    kept: list[Any]


def _compute_convolutions(
    network: _Network, index: int, variables: PyTree, state: State
) -> State:
    """Computes a round on a piece; or on its whole input, with what is kept beside."""
    x, kept = apart(state)
    # For kernels any batch will do.
    flat = flatten(network.f_conv, variables, network.image_shape, dtype=x.dtype)
    own = _take_apart(network, flat)[0][index]
    values = flat.constants(jax.tree.leaves(variables))
    run(needed(flat.constant, [eqn.invars[1] for eqn in own.eqns]), values)
    return together(own.convolve(x, values), kept)


def _compute_client(
    network: _Network, index: int, variables: PyTree, state: State
) -> State:
    """Computes the client's part before round `index`, or behind the last one."""
    x, kept = apart(state)
    batch = x.shape[0]
    flat = flatten(network.f_conv, variables, network.image_shape, batch, x.dtype)
    rounds, clients = _take_apart(network, flat)
    values = flat.constants(jax.tree.leaves(variables))
    if index == 0:
        values[flat.image] = x
    else:
        values |= rounds[index - 1].outputs(x)
        values |= zip(clients[index - 1].kept, kept, strict=True)
    part = clients[index]
    run([*needed(flat.constant, part.reads), *part.eqns], values)
    if index == len(rounds):
        return values[flat.results[0]]
    return together(rounds[index].pad(values), tuple(values[v] for v in part.kept))


@functools.lru_cache(maxsize=64)
def _take_apart(network: _Network, flat: Flat) -> tuple[list[_Round], list[_Part]]:
    """Returns the rounds, and the client's parts before, between and behind them.

    Every other operation goes to the first part that needs its result.
    """
    rounds = [r for r in _rounds(flat, network.k) if r.spared >= network.least_spared]
    distributed = {id(eqn) for r in rounds for eqn in r.eqns}
    left = [eqn for eqn in flat.dynamic if id(eqn) not in distributed]
    own, reads = [], []
    for goal in (*([r.eqns[0].invars[0]] for r in rounds), flat.results):
        own.append(needed(left, goal))
        reads.append(variables_among(v for eqn in own[-1] for v in eqn.invars))
        reads[-1] |= variables_among(goal)
        taken = set(map(id, own[-1]))
        left = [eqn for eqn in left if id(eqn) not in taken]
    clients, made = [], [flat.image]
    for i, eqns in enumerate(own):
        made += [v for eqn in eqns for v in eqn.outvars]
        later = set[Any]().union(*reads[i + 1 :])
        clients.append(_Part(eqns, reads[i], [v for v in made if v in later]))
        if i < len(rounds):
            made += [v for eqn in rounds[i].eqns for v in eqn.outvars]
    return rounds, clients


def _rounds(flat: Flat, k: int) -> list[_Round]:
    """Groups convolutions that can be computed in one round, and plans their pieces.

    Those of which no device is spared anything are left out.
    """
    batch, image_dtype = flat.image.aval.shape[0], flat.image.aval.dtype
    varying = {flat.image, *(v for eqn in flat.dynamic for v in eqn.outvars)}
    groups: dict[Any, list[Any]] = {}
    for eqn in flat.dynamic:
        if eqn.primitive.name != "conv_general_dilated" or eqn.invars[1] in varying:
            continue
        spec, source = eqn.params["dimension_numbers"].lhs_spec, eqn.invars[0]
        if (
            len(spec) == 4
            and eqn.params["batch_group_count"] == 1
            and source.aval.shape[spec[0]] == batch
            and {v.aval.dtype for v in (*eqn.invars, *eqn.outvars)} == {image_dtype}
        ):
            alike = [
                (axis.size, axis.out, axis.stride, axis.interior) for axis in _axes(eqn)
            ]
            groups.setdefault((source, spec, *alike), []).append(eqn)
    rounds, total = [], 0  # of the products of an image
    for (source, spec, *_), eqns in groups.items():
        rows, columns = map(_joint, zip(*map(_axes, eqns), strict=True))
        maps = sum(
            e.outvars[0].aval.shape[e.params["dimension_numbers"].out_spec[1]]
            for e in eqns
        )
        plans = [
            SplitPlan(
                rows.plan(k // parts),
                columns.plan(parts),
                channels=source.aval.shape[spec[1]],
                feature_channels=maps,
            )
            for parts in range(1, k + 1)
            if k % parts == 0
        ]
        # Fewest positions that a device computes, then fewest that it is sent.
        computed = lambda plan: plan.rows.share * plan.columns.share
        sent = lambda plan: plan.rows.window * plan.columns.window
        plan = min(plans, key=lambda plan: (computed(plan), sent(plan)))
        products = sum(math.prod(e.invars[1].aval.shape) for e in eqns)  # a position's
        positions = rows.out * columns.out
        total += products * positions
        spared = products * (positions - computed(plan))
        rounds.append(_Round(tuple(eqns), (rows, columns), plan, spared))
    return [r._replace(spared=r.spared / total) for r in rounds if r.spared > 0]


def _axes(eqn: Any) -> tuple[_Axis, _Axis]:
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
