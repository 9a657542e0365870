"""A network as operations that lie somewhere on the image, or nowhere.

They are in an order of their own: what no operation that can be split needs comes last,
as the mean of a value that goes on to others, so that it stands in no segment's way.

Each value that depends on the image either lies on it, with batch, rows and columns on
some of its axes, or is of the image as a whole, as what a global pooling leaves. An
operation can be split if it lies on the image with all that it reads and has a
receptive field there.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from coded_jax.inference.operations import count_equation
from coded_jax.splitting.flattening import BATCH, UNCHANGED, Flat, variables_among
from coded_jax.splitting.jaxpr_constants import trace_constants, trace_of
from coded_jax.splitting.rules import through_features
from coded_jax.splitting.traces import Constant, Feature, Field, Fields, Refusal

Sizes = tuple[int, int]
"""Along rows and along columns."""


class Place(NamedTuple):
    """The place of a value on the image.

    Attributes:
      axes: of batch, rows and columns; all others are channels.
      sizes: rows and columns.
      strides: pixels from one row and from one column to the next.
    """

    axes: tuple[int, int, int]
    sizes: Sizes
    strides: tuple[Fraction, Fraction]


def factors(fine: Place, coarse: Place) -> Sizes | None:
    """Returns the number of rows and columns for each one of a coarser value.

    None where that is no whole number.
    """
    found = []
    of_axes = zip(fine.sizes, coarse.sizes, fine.strides, coarse.strides, strict=True)
    for size, fewer, stride, wider in of_axes:
        if size % fewer or wider != stride * (size // fewer):
            return None
        found.append(size // fewer)
    return found[0], found[1]


class Packing(NamedTuple):
    """Values that fit into one array, one behind the other as channels.

    Attributes:
      variables: of the values.
      base: the place of the array, which is that of the coarsest value.
      finer: rows and columns of each value for each one of the array; what lies at one
        place of the array becomes channels.
      channels: of the array.
    """

    variables: tuple[Any, ...]
    base: Place
    finer: tuple[Sizes, ...]
    channels: int


class Operation(NamedTuple):
    """An operation that depends on the image.

    Attributes:
      eqn: the equation.
      reads: the variables that it reads and that depend on the image.
      flops: floating point operations, for one image.
      fields: receptive field on what it reads, along rows and columns; None if it
        cannot be split.
      obstacle: why it cannot; None if it can, or if what it reads is an obstacle.
    """

    eqn: Any
    reads: tuple[Any, ...]
    flops: float
    fields: Fields | None
    obstacle: str | None


@dataclasses.dataclass(frozen=True, eq=False)
class Graph:
    """The operations of a network in an order, and where their values lie.

    Attributes:
      flat: the network in its own order, for `flattening.BATCH` images.
      operations: those that depend on the image.
      places: variable -> its place; values without one are not there.
      order: for each operation its number in that order.
    """

    flat: Flat
    operations: tuple[Operation, ...]
    places: dict[Any, Place]
    order: tuple[int, ...]

    def matched(self, flat: Flat, end: int) -> dict[Any, Any] | None:
        """Matches the variables of the graph with those of another trace of the
        network, as far as operations before number `end` make them.

        Returns:
          Variable of the graph -> that of the trace; None if these operations are
          others there, or if any are, where `end` is behind the last one.
        """
        reach = 1 + max(self.order[:end], default=-1)
        if end == len(self.order):
            reach = max(reach, len(flat.dynamic))
        if names_of(flat)[:reach] != names_of(self.flat)[:reach]:
            return None
        pairs = [(self.flat.image, flat.image)]
        for op, number in zip(self.operations[:end], self.order[:end], strict=True):
            pairs += zip(op.eqn.outvars, flat.dynamic[number].outvars, strict=True)
        return dict(pairs)

    def packing(self, variables: Sequence[Any]) -> Packing | None:
        """Returns the packing of values into one array; None if they do not fit."""
        dtypes = {v.aval.dtype for v in variables}
        real = all(jnp.issubdtype(dtype, jnp.floating) for dtype in dtypes)
        if len(dtypes) != 1 or not real:
            return None
        if not all(v in self.places for v in variables):
            return None
        places = [self.places[v] for v in variables]
        base = min(places, key=lambda place: place.sizes)
        finer = [own for place in places if (own := factors(place, base))]
        if len(finer) < len(places):
            return None
        channels = sum(
            math.prod((*self.channels(v), *own))
            for v, own in zip(variables, finer, strict=True)
        )
        return Packing(tuple(variables), base, tuple(finer), channels)

    def flops(self, start: int = 0, end: int | None = None) -> float:
        """Returns the work of operations `start` up to `end`, by default of all."""
        end = len(self.operations) if end is None else end
        return float(self._sums[end, 0] - self._sums[start, 0])

    def piece_flops(self, start: int, end: int, rows: float, columns: float) -> float:
        """Returns the work of a piece that has so many pixels less than the image.

        It is that of the whole, but for the rows and columns of each operation's result
        that the piece has not: so many fewer pixels, over its stride.
        """
        whole, by_row, by_column, by_both = self._sums[end] - self._sums[start]
        less = by_row * rows + by_column * columns - by_both * rows * columns
        return float(whole - less)

    @functools.cached_property
    def _sums(self) -> np.ndarray:
        """Sums over the first operations `[N + 1, 4]`: of the work, of that for one
        pixel of rows, of columns, and of both."""
        work = np.zeros((len(self.operations) + 1, 4))
        for row, op in zip(work[1:], self.operations, strict=True):
            place, by_pixel = self.places.get(op.eqn.outvars[0]), (0.0, 0.0)
            if place is not None and min(place.sizes) > 0:
                axes = zip(place.sizes, place.strides, strict=True)
                by_pixel = [float(1 / (size * stride)) for size, stride in axes]
            row[:] = op.flops * np.array([1, *by_pixel, math.prod(by_pixel)])
        return np.cumsum(work, axis=0)

    @functools.cached_property
    def last_use(self) -> dict[Any, int]:
        """Variable -> number of the last operation that reads it; of results, one more
        than there are."""
        uses = {v: i for i, op in enumerate(self.operations) for v in op.reads}
        return uses | dict.fromkeys(self.flat.results, len(self.operations))

    @functools.cached_property
    def made_by(self) -> dict[Any, int]:
        """Variable -> number of the operation that makes it; -1 for the image."""
        made = {v: i for i, op in enumerate(self.operations) for v in op.eqn.outvars}
        return made | {self.flat.image: -1}

    def channels(self, variable: Any) -> list[int]:
        """Returns the sizes of the axes of a value that are channels."""
        shape, place = variable.aval.shape, self.places[variable]
        return [n for axis, n in enumerate(shape) if axis not in place.axes]

    @functools.cached_property
    def live(self) -> list[list[Any]]:
        """For each cut the variables that operations before it make, the image
        included, and later ones read."""
        lives = [[self.flat.image]]
        for cut, op in enumerate(self.operations, 1):
            made = [*lives[-1], *op.eqn.outvars]
            lives.append([v for v in made if self.last_use.get(v, -1) >= cut])
        return lives


def names_of(flat: Flat) -> list[str]:
    """Returns the names of the operations that depend on the image."""
    return [eqn.primitive.name for eqn in flat.dynamic]


def make_graph(flat: Flat, trace_more: Callable[[], Flat | None]) -> Graph:
    """Makes the graph of a network: the place of each value on the image.

    Args:
      flat: the network, for `flattening.BATCH` images.
      trace_more: returns the same operations for one more; None if they are others.
        It is called only where the operations themselves do not tell enough.
    """
    batch, height, width, _ = flat.image.aval.shape
    image = Place((0, 1, 2), (height, width), (Fraction(1), Fraction(1)))
    places = {flat.image: image}
    traces, operations = trace_constants(flat), []  # None of what lies nowhere
    traces[flat.image] = Feature(image.axes)
    depends = lambda atom: (
        not (hasattr(atom, "val") or isinstance(traces[atom], Constant))
    )
    for number, eqn in enumerate(flat.dynamic):
        reads = tuple(dict.fromkeys(filter(depends, eqn.invars)))
        if _reads_images(eqn, number, traces, trace_more):
            seen, spec = eqn.invars[0], eqn.params["dimension_numbers"].lhs_spec
            traces[seen] = Feature((spec[0], *spec[2:]))
            places[seen] = _place(seen, traces[seen], image)
        flops = count_equation(eqn, [*map(depends, eqn.invars)])[0] / batch
        operands = [trace_of(atom, traces) for atom in eqn.invars]
        known = [trace for trace in operands if trace is not None]
        origin = next((places[v] for v in reads if v in places), None)
        fields, obstacle = None, None
        outputs = [None] * len(eqn.outvars)
        if len(known) < len(operands):
            pass
        elif 0 in eqn.outvars[0].aval.shape:  # as half of what a roll by 0 joins
            obstacle = "leaves no rows, columns or channels"
        else:
            try:
                if eqn.primitive.name in UNCHANGED:
                    outputs = known
                else:
                    outputs = [through_features(eqn, known)] * len(eqn.outvars)
                if origin is not None:
                    fields = next(x for x in outputs if isinstance(x, Feature)).fields
            except Refusal as why:
                obstacle = str(why)
        for v, output in zip(eqn.outvars, outputs, strict=True):
            trace = output if fields else _goes_on(eqn, v, traces)
            traces[v] = None
            if isinstance(trace, Feature) and origin is not None:
                traces[v] = dataclasses.replace(
                    trace, fields=(Field(), Field()), own=None
                )
                places[v] = _place(v, trace, origin, fields)
        operations.append(Operation(eqn, reads, flops, fields, obstacle))
    # What no splittable operation needs comes last.
    first, needed = [], set()
    for i in reversed(range(len(operations))):
        op = operations[i]
        if op.fields is not None or not needed.isdisjoint(op.eqn.outvars):
            first.append(i)
            needed.update(op.reads)
    order = (*reversed(first), *sorted({*range(len(operations))} - {*first}))
    return Graph(flat, tuple(operations[i] for i in order), places, order)


def _place(
    v: Any, trace: Feature, origin: Place, fields: Fields | None = None
) -> Place:
    """Returns the place of a value whose receptive fields lie on that of another."""
    steps = [field.stride for field in fields] if fields else (1, 1)
    rows, columns = (v.aval.shape[axis] for axis in trace.axes[1:])
    strides = [s * step for s, step in zip(origin.strides, steps, strict=True)]
    return Place(trace.axes, (rows, columns), (strides[0], strides[1]))


def _goes_on(eqn: Any, v: Any, traces: dict[Any, Any]) -> Feature | None:
    """Returns the trace of an obstacle's result: that of an operand of its shape, as in
    the product of a feature and a gate; None if there is none.

    A product with sums may order its axes anew, so that this tells nothing where some
    of them are as long as others.
    """
    for atom in variables_among(eqn.invars):
        trace, shape = traces[atom], atom.aval.shape
        if isinstance(trace, Feature) and shape == v.aval.shape:
            sure = eqn.primitive.name != "dot_general" or len(set(shape)) == len(shape)
            return trace if sure else None
    return None


def _reads_images(
    eqn: Any,
    number: int,
    traces: dict[Any, Any],
    trace_more: Callable[[], Flat | None],
) -> bool:
    """Returns whether a convolution of what nothing is known of reads images.

    That is, one more where the network does, and nothing else more: no windows, or
    other parts of images, or of their channels.
    """
    if eqn.primitive.name != "conv_general_dilated":
        return False
    spec = eqn.params["dimension_numbers"].lhs_spec
    if trace_of(eqn.invars[0], traces) is not None or len(spec) != 4:
        return False
    if (more := trace_more()) is None:
        return False
    two, three = (x.invars[0].aval.shape for x in (eqn, more.dynamic[number]))
    grown = tuple(size + (axis == spec[0]) for axis, size in enumerate(two))
    return two[spec[0]] == BATCH and three == grown
