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
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import jax.numpy as jnp

from coded_jax.inference.operations import count_equation
from coded_jax.splitting.flattening import BATCH, Flat, variables_among
from coded_jax.splitting.receptive_field import Fields, Tracer, Unsplittable
from coded_jax.splitting.traces import (
    Constant,
    Feature,
    Field,
    Trace,
    trace_constant,
)

Value = tuple[int, int]
"""A value: the number of the operation that makes it, -1 for the image, and which of
its results it is. It is the same however often the network is traced."""


class Place(NamedTuple):
    """The place of a value on the image.

    Attributes:
      axes: of batch, rows and columns; all others are channels.
      sizes: rows and columns.
      strides: pixels from one row and from one column to the next.
    """

    axes: tuple[int, int, int]
    sizes: tuple[int, int]
    strides: tuple[Fraction, Fraction]


def coarsest(places: Iterable[Place]) -> Place:
    """Returns the place with the fewest rows and columns."""
    return min(places, key=lambda place: place.sizes)


def factors(fine: Place, coarse: Place) -> tuple[int, int] | None:
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
    obstacle: Unsplittable | None


@dataclasses.dataclass(frozen=True, eq=False)
class Graph:
    """The operations of a network in an order, and where their values lie.

    Attributes:
      flat: the network in that order, for `flattening.BATCH` images.
      operations: those that depend on the image.
      places: variable -> its place; values without one are not there.
      order: for each operation its number in the network's own order.
    """

    flat: Flat
    operations: tuple[Operation, ...]
    places: dict[Any, Place]
    order: tuple[int, ...]

    @functools.cached_property
    def names(self) -> list[str]:
        """Names of the operations, in the network's own order."""
        names = [op.eqn.primitive.name for op in self.operations]
        return [name for _, name in sorted(zip(self.order, names, strict=True))]

    def follows(self, flat: Flat, end: int) -> bool:
        """Returns whether a trace of the network has these operations, up to number
        `end`; all of them if that is the last one.

        Args:
          flat: a trace, in the network's own order.
          end: number of an operation, in the order of the graph.
        """
        reach = 1 + max(self.order[:end], default=-1)
        if end == len(self.order):
            reach = max(reach, len(flat.dynamic))
        return names_of(flat)[:reach] == self.names[:reach]

    def ordered(self, flat: Flat) -> Flat:
        """Returns a trace of the network in the order of the graph, as far as it
        `follows`."""
        total = len(flat.dynamic)
        dynamic = [flat.dynamic[i] for i in self.order if i < total]
        return dataclasses.replace(flat, dynamic=dynamic)

    def common_place(self, variables: Sequence[Any]) -> Place | None:
        """Returns the place of an array that has some values, one behind the other as
        channels; None if they do not fit into one."""
        dtypes = {v.aval.dtype for v in variables}
        if len(dtypes) != 1 or not jnp.issubdtype(*dtypes, jnp.floating):
            return None
        if not all(v in self.places for v in variables):
            return None
        places = [self.places[v] for v in variables]
        base = coarsest(places)
        return None if None in [factors(place, base) for place in places] else base

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

    def variable(self, value: Value) -> Any:
        """Returns the variable of a value."""
        number, result = value
        return (
            self.flat.dynamic[number].outvars[result]
            if number >= 0
            else self.flat.image
        )

    def value(self, variable: Any) -> Value:
        """Returns the value of a variable."""
        number = self.made_by[variable]
        if number < 0:
            return -1, 0
        return number, self.flat.dynamic[number].outvars.index(variable)

    def place(self, value: Value) -> Place:
        """Returns the place of a value on the image."""
        return self.places[self.variable(value)]

    def channels(self, variable: Any) -> list[int]:
        """Returns the sizes of the axes of a value that are channels."""
        shape, place = variable.aval.shape, self.places[variable]
        return [n for axis, n in enumerate(shape) if axis not in place.axes]

    def live(self, cut: int) -> list[Any]:
        """Returns the variables that operations before number `cut` make, the image
        included, and later ones read."""
        made = [v for op in self.operations[:cut] for v in op.eqn.outvars]
        return [v for v in (self.flat.image, *made) if self.last_use.get(v, -1) >= cut]


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
    batch, *sizes, _ = flat.image.aval.shape
    tracer = Tracer((sizes[0], sizes[1]))
    traces = _trace_constants(flat, tracer)
    one = (Fraction(1), Fraction(1))
    traces[flat.image] = Feature((0, 1, 2))
    places = {flat.image: Place((0, 1, 2), (sizes[0], sizes[1]), one)}
    operations = []
    for number, eqn in enumerate(flat.dynamic):
        variables = dict.fromkeys(v for v in eqn.invars if _depends(v, traces))
        reads = tuple(variables)
        if _may_lie(eqn, traces) and _grows(eqn, number, trace_more()):
            _seed(eqn, traces, places)
        operands = [_read(atom, traces) for atom in eqn.invars]
        varies = [_depends(atom, traces) for atom in eqn.invars]
        flops = count_equation(eqn, varies)[0] / batch
        fields, obstacle = None, None
        if None in operands:
            outputs = [None] * len(eqn.outvars)
        elif eqn.primitive.name == "cond":  # whose branches have the image's sizes
            outputs = [None] * len(eqn.outvars)
            obstacle = Unsplittable("'cond'", "chooses between branches", "")
        elif 0 in eqn.outvars[0].aval.shape:  # as half of what a roll by 0 joins
            outputs = [None] * len(eqn.outvars)
            name = repr(eqn.primitive.name)
            obstacle = Unsplittable(name, "leaves no rows, columns or channels", "")
        else:
            outputs = tracer.equation(eqn, operands, "")  # type: ignore
            obstacle = next((x for x in outputs if isinstance(x, Unsplittable)), None)
        ends = next((x for x in outputs if isinstance(x, Feature)), None)
        origin = next((places[v] for v in reads if v in places), None)
        if ends is not None and obstacle is None and origin is not None:
            fields = ends.fields
        for v, output in zip(eqn.outvars, outputs, strict=True):
            trace = output if fields else _goes_on(eqn, v, traces)
            traces[v] = None
            if isinstance(trace, Feature) and origin is not None:
                steps = [field.stride for field in trace.fields] if fields else (1, 1)
                traces[v] = dataclasses.replace(trace, fields=(Field(), Field()))
                places[v] = _place(v, trace, origin, steps)
        operations.append(Operation(eqn, reads, flops, fields, obstacle))
    order = _order(operations)
    dynamic = [flat.dynamic[i] for i in order]
    return Graph(
        dataclasses.replace(flat, dynamic=dynamic),
        tuple(operations[i] for i in order),
        places,
        tuple(order),
    )


def _order(operations: Sequence[Operation]) -> list[int]:
    """Returns an order in which operations that no splittable one needs come last."""
    first, needed = [], set()
    for i in reversed(range(len(operations))):
        op = operations[i]
        if op.fields is not None or not needed.isdisjoint(op.eqn.outvars):
            first.append(i)
            needed.update(op.reads)
    last = {*range(len(operations))} - {*first}
    return [*reversed(first), *sorted(last)]


def _trace_constants(flat: Flat, tracer: Tracer) -> dict[Any, Trace | None]:
    """Returns the traces of what does not depend on the image."""
    traces: dict[Any, Trace | None] = {
        v: trace_constant(v.aval, i) for i, v in enumerate(flat.weights)
    }
    jaxpr = flat.closed.jaxpr
    traces.update(
        (v, trace_constant(value))
        for v, value in zip(jaxpr.constvars, flat.closed.consts, strict=True)
    )
    for eqn in flat.constant:
        operands = [_read(atom, traces) for atom in eqn.invars]
        outputs = tracer.equation(eqn, operands, "")  # type: ignore
        traces.update(zip(eqn.outvars, outputs, strict=True))
    return traces


def _read(atom: Any, traces: dict[Any, Trace | None]) -> Trace | None:
    return trace_constant(atom.val) if hasattr(atom, "val") else traces[atom]


def _depends(atom: Any, traces: dict[Any, Trace | None]) -> bool:
    """Returns whether a variable depends on the image."""
    return not hasattr(atom, "val") and not isinstance(traces[atom], Constant)


def _place(v: Any, trace: Feature, origin: Place, steps: Sequence[Any]) -> Place:
    strides = [s * step for s, step in zip(origin.strides, steps, strict=True)]
    rows, columns = (v.aval.shape[axis] for axis in trace.axes[1:])
    return Place(trace.axes, (rows, columns), (strides[0], strides[1]))


def _goes_on(eqn: Any, v: Any, traces: dict[Any, Trace | None]) -> Feature | None:
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


def _may_lie(eqn: Any, traces: dict[Any, Trace | None]) -> bool:
    """Returns whether an equation is a convolution of what nothing is known of."""
    if eqn.primitive.name != "conv_general_dilated":
        return False
    v, spec = eqn.invars[0], eqn.params["dimension_numbers"].lhs_spec
    return not hasattr(v, "val") and traces[v] is None and len(spec) == 4


def _grows(eqn: Any, number: int, more: Flat | None) -> bool:
    """Returns whether a convolution reads one more image, and nothing else more, where
    the network does: no windows, or other parts of images, or of their channels."""
    if more is None:
        return False
    batch = eqn.params["dimension_numbers"].lhs_spec[0]
    two, three = (x.invars[0].aval.shape for x in (eqn, more.dynamic[number]))
    grown = tuple(size + (axis == batch) for axis, size in enumerate(two))
    return two[batch] == BATCH and three == grown


def _seed(eqn: Any, traces: dict[Any, Trace | None], places: dict[Any, Place]) -> None:
    """Takes what a convolution reads to lie on the image."""
    v, numbers = eqn.invars[0], eqn.params["dimension_numbers"]
    batch, _, rows, columns = numbers.lhs_spec
    feature = Feature((batch, rows, columns))
    traces[v] = feature
    places[v] = _place(
        v, feature, Place((0, 1, 2), (1, 1), (Fraction(1), Fraction(1))), (1, 1)
    )
