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
import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from coded_jax.splitting import flattening
from coded_jax.splitting.windows import Window, windows_of_operation
from coded_jax.types import AxisPlan, Block, PyTree, SplitPlan, State, apart, together

NHWC = lax.ConvDimensionNumbers((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))


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
    first = _Part(functools.partial(f_conv), image_shape, k, least_spared)
    flat = flattening.flatten(first.f_conv, variables, image_shape)
    rounds = _rounds(flat, k)
    if not rounds:
        raise ValueError(
            f"split: 'convolution' given, image or group accepted for a network "
            f"without a convolution of which one of k={k} pieces is less work"
        )
    most = max(r.spared for r in rounds)
    if most < least_spared:
        raise ValueError(
            f"least_spared: {least_spared} given, at most {rounded_down(most)} "
            f"accepted for this network with k={k}"
        )
    plans = tuple(r.plan for r in rounds if r.spared >= least_spared)
    numbers = range(2 * len(plans) + 1)
    return tuple(dataclasses.replace(first, number=i) for i in numbers), plans


def spared_parts(
    f_conv: Block, variables: PyTree, image_shape: tuple[int, int, int], k: int
) -> tuple[float, ...]:
    """Returns the work that every round spares a device, the most first.

    That is the part of a convolution that is not in its piece, over the operations of
    all convolutions that could be cut.

    Args:
      f_conv, variables, image_shape, k: as of `separate_convolutions`.
    """
    flat = flattening.flatten(functools.partial(f_conv), variables, image_shape)
    return tuple(sorted((r.spared for r in _rounds(flat, k)), reverse=True))


def rounded_down(part: float) -> float:
    """Returns a part that is no larger, of four decimals."""
    return math.floor(part * 1e4) / 1e4


@dataclasses.dataclass(frozen=True)
class _Part:
    """A part of a network, as a block.

    It holds no jaxpr, so that it can be sent to other processes.

    Attributes:
      f_conv: see `separate_convolutions`; an object of its own for all parts, so that
        no other network finds its traces.
      image_shape, k, least_spared: see `separate_convolutions`.
      number: among all parts; those of the devices are odd.
    """

    f_conv: Block
    image_shape: tuple[int, int, int]
    k: int
    least_spared: float
    number: int = 0

    def __call__(self, variables: PyTree, state: State) -> State:
        """Computes a round on a piece, or on its whole input; or a client's part."""
        x, kept = apart(state)
        index, is_of_devices = divmod(self.number, 2)
        batch = flattening.BATCH if is_of_devices else x.shape[0]  # any for kernels
        flat = flattening.flatten(
            self.f_conv, variables, self.image_shape, batch, x.dtype
        )
        rounds, parts, live = _take_apart(flat, self.k, self.least_spared)
        eqns, values = parts[self.number], flat.constants(jax.tree.leaves(variables))
        reads = [v for eqn in eqns for v in eqn.invars]
        flattening.run(flattening.needed(flat.constant, reads), values)
        if is_of_devices:
            return together(rounds[index].convolve(x, values), kept)
        if index == 0:
            values[flat.image] = x
        else:
            values |= rounds[index - 1].outputs(x)
            values |= zip(live[index - 1], kept, strict=True)
        flattening.run(eqns, values)
        if index == len(rounds):
            return values[flat.results[0]]
        kept = tuple(values[v] for v in live[index])
        return together(rounds[index].pad(values), kept)


class _Round(NamedTuple):
    """Convolutions of one value, with the same strides and sizes of outputs.

    Attributes:
      eqns: the equations.
      joint: windows along rows and columns that hold those of all of them.
      plan: how their common input is split.
      spared: what it spares a device, see `spared_parts`.
    """

    eqns: list[Any]
    joint: tuple[Window, Window]
    plan: SplitPlan
    spared: float

    def pad(self, values: flattening.Values) -> jax.Array:
        """Returns the input that the plan splits, of the value that is convolved."""
        eqn, config = self.eqns[0], [(0, 0, 0)]
        order = _nhwc(eqn.params["dimension_numbers"].lhs_spec)
        x = lax.transpose(flattening.read(eqn.invars[0], values), order)
        axes = zip(self.joint, (self.plan.rows, self.plan.columns), strict=True)
        for window, plan in axes:
            size = (window.size - 1) * window.gap + 1
            config.append((window.low, plan.size - size - window.low, window.gap - 1))
        return lax.pad(x, np.zeros((), x.dtype), [*config, (0, 0, 0)])

    def convolve(self, x: jax.Array, values: flattening.Values) -> jax.Array:
        """Computes the convolutions of a piece, or of the whole input, `[B, h, w, C]`.

        Returns `[B, M, M', D]`, with the channels of all of them. The kernels are among
        `values`.
        """
        outputs = []
        for eqn in self.eqns:
            seen = []  # Others of the round may see more.
            for own, joint, size in zip(
                _windows(eqn), self.joint, x.shape[1:3], strict=True
            ):
                first = joint.low - own.low
                seen.append(slice(first, size - joint.reach + first + own.reach))
            out, into, *positions = eqn.params["dimension_numbers"].rhs_spec
            kernel = flattening.read(eqn.invars[1], values)
            valid = {"padding": ((0, 0), (0, 0)), "lhs_dilation": (1, 1)}
            params = {**eqn.params, **valid, "dimension_numbers": NHWC}
            outputs.append(
                eqn.primitive.bind(
                    x[:, *seen],
                    lax.transpose(kernel, (*positions, into, out)),
                    **params,
                )
            )
        return jnp.concatenate(outputs, axis=-1) if len(outputs) > 1 else outputs[0]

    def outputs(self, merged: jax.Array) -> flattening.Values:
        """Returns each convolution's output, by its variable."""
        first, values = 0, {}
        for eqn in self.eqns:
            _, rows, columns, maps = _output_shape(eqn)
            own = merged[:, :rows, :columns, first : first + maps]
            order = _nhwc(eqn.params["dimension_numbers"].out_spec)
            values[eqn.outvars[0]] = jnp.moveaxis(own, range(4), order)
            first += maps
        return values


@functools.lru_cache(maxsize=64)
def _take_apart(
    flat: flattening.Flat, k: int, least_spared: float
) -> tuple[list[_Round], list[list[Any]], list[list[Any]]]:
    """Returns the rounds, the equations of all parts, and the variables that the client
    keeps during each round.

    Every operation of the client goes to the first part that needs its result.
    """
    rounds = [r for r in _rounds(flat, k) if r.spared >= least_spared]
    taken, parts = {id(eqn) for r in rounds for eqn in r.eqns}, []
    for r in rounds:
        left = [eqn for eqn in flat.dynamic if id(eqn) not in taken]
        parts += [flattening.needed(left, r.eqns[0].invars[:1]), r.eqns]
        taken.update(map(id, parts[-2]))
    parts.append([eqn for eqn in flat.dynamic if id(eqn) not in taken])
    live = []
    for i in range(1, len(parts), 2):
        before, after = itertools.chain(*parts[:i]), itertools.chain(*parts[i + 1 :])
        made = [flat.image, *(v for eqn in before for v in eqn.outvars)]
        reads = flattening.variables_among(v for eqn in after for v in eqn.invars)
        reads.update(flat.results)
        live.append([v for v in made if v in reads])
    return rounds, parts, live


def _rounds(flat: flattening.Flat, k: int) -> list[_Round]:
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
            steps = [(window.stride, window.gap) for window in _windows(eqn)]
            alike = (source, spec, *steps, *_output_shape(eqn)[1:3])
            groups.setdefault(alike, []).append(eqn)
    rounds, total = [], 0  # of the products of an image
    for eqns in groups.values():
        rows, columns = map(_joint, zip(*map(_windows, eqns), strict=True))
        grids = [(k // n, n) for n in range(1, k + 1) if k % n == 0]
        plans = [_plan(eqns, (rows, columns), grid) for grid in grids]
        # Fewest positions that a device computes, then fewest that it is sent.
        computed = lambda plan: plan.rows.share * plan.columns.share
        sent = lambda plan: plan.rows.window * plan.columns.window
        plan = min(plans, key=lambda plan: (computed(plan), sent(plan)))
        products = sum(math.prod(e.invars[1].aval.shape) for e in eqns)  # a position's
        positions = math.prod(_output_shape(eqns[0])[1:3])
        total += products * positions
        spared = products * (positions - computed(plan))
        rounds.append(_Round(eqns, (rows, columns), plan, spared))
    return [r._replace(spared=r.spared / total) for r in rounds if r.spared > 0]


def _windows(eqn: Any) -> list[Window]:
    """Returns the windows of a convolution along rows and along columns."""
    return [*windows_of_operation(eqn)[1].values()]


def _nhwc(spec: Sequence[int]) -> tuple[int, int, int, int]:
    """Returns the axes of batch, rows, columns and channels."""
    batch, channels, rows, columns = spec
    return batch, rows, columns, channels


def _output_shape(eqn: Any) -> list[int]:
    """Returns batch, rows, columns and channels of a convolution's output."""
    shape = eqn.outvars[0].aval.shape
    return [shape[axis] for axis in _nhwc(eqn.params["dimension_numbers"].out_spec)]


def _joint(windows: Sequence[Window]) -> Window:
    """Returns the window that sees all inputs which some of these see for an output."""
    low = max(window.low for window in windows)
    reach = max(low - window.low + window.reach for window in windows)
    return windows[0]._replace(kernel=reach, dilation=1, low=low)


def _plan(
    eqns: list[Any], joint: tuple[Window, Window], grid: tuple[int, int]
) -> SplitPlan:
    """Plans equal shares, of an input that is padded for them."""
    axes, shapes = [], [_output_shape(eqn) for eqn in eqns]
    for window, out, parts in zip(joint, shapes[0][1:3], grid, strict=True):
        share, stride = -(-out // parts), window.stride
        plan = AxisPlan(
            size=(parts * share - 1) * stride + window.reach,
            window=(share - 1) * stride + window.reach,
            starts=tuple(i * share * stride for i in range(parts)),
            out=parts * share,
            share=share,
            cuts=(0,) * parts,
            stride=stride,
        )
        axes.append(plan)
    channels = eqns[0].params["dimension_numbers"].lhs_spec[1]
    rows, columns = axes
    depth = sum(shape[-1] for shape in shapes)
    return SplitPlan(rows, columns, eqns[0].invars[0].aval.shape[channels], depth)
