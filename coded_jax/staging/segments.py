"""Segments of a network that can be one coded stage each, and what they would cost.

A cut stands before an operation; a segment lies between two cuts. What it reads of
values made before it is its input, what later operations read of its values its output;
each is packed into one array, the channels one behind the other. All else that is
needed later the client keeps, see `types.State`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, NamedTuple

import jax.numpy as jnp

from coded_jax.inference.costs import Round
from coded_jax.splitting.plan import plan_axis
from coded_jax.splitting.traces import Field, Fields, Refusal, join_fields
from coded_jax.staging.graph import Graph, Operation, Packing, Place, Sizes, factors

HEAVY = frozenset(
    "conv_general_dilated dot_general reduce_window reduce_window_max "
    "reduce_window_min reduce_window_sum".split()
)
"""Operations before which a cut may stand; elementwise ones go with what is before."""

ITEMSIZE = 4  # bytes of a value that is sent


class CodedSegment(NamedTuple):
    """A part of a network that can be a coded stage.

    Attributes:
      start, end: numbers of its first operation and of the one behind it.
      grid: pieces along rows and columns.
      flops: operations of the whole segment.
      trip: its round, for one image.
    """

    start: int
    end: int
    grid: Sizes
    flops: float
    trip: Round


def cuts(graph: Graph) -> list[int]:
    """Returns the numbers of operations before which a segment may begin or end."""
    found = {0, len(graph.operations)}
    for i, op in enumerate(graph.operations):
        name, params = op.eqn.primitive.name, op.eqn.params
        # Behind it, as a mean of bfloat16, a value and its copy, of two dtypes, do not
        # fit into one array.
        converts = name == "convert_element_type" and (
            params["new_dtype"] != op.eqn.invars[0].aval.dtype
        )
        if op.fields is None:
            found |= {i, i + 1}
        elif name in HEAVY or converts:
            found.add(i)
    return sorted(found)


def grids_of(k: int) -> list[Sizes]:
    """Returns the grids of k pieces."""
    return [(k // columns, columns) for columns in range(1, k + 1) if k % columns == 0]


def segments(graph: Graph, k: int, r: int) -> Iterator[CodedSegment]:
    """Yields every segment that can be split into k pieces, by each grid.

    Those from a cut come together, the shortest first. None is longer than the first
    one whose pieces all need the whole input.
    """
    places = cuts(graph)
    for number, start in enumerate(places):
        walk, grids = _Walk(graph, start), grids_of(k)
        try:
            for begin, end in itertools.pairwise(places[number:]):
                for op in graph.operations[begin:end]:
                    walk.through(op)
                output = graph.packing([v for v in graph.live[end] if v in walk.made])
                if output is None or walk.base is None:
                    continue
                fields = walk.fields_of(output)
                found = [walk.segment(end, output, fields, grid, r) for grid in grids]
                if not any(found):
                    break
                yield from filter(None, found)
        except Refusal:
            continue


class _Walk:
    """The receptive fields of values on the input of a segment that begins at a cut.

    Attributes:
      graph: the network.
      start: number of the first operation.
      base: place of the input, once some of it is read. Values of it that are finer, by
        whole factors, are packed with more channels.
      channels, dtype: of the input.
      fields: of the values that are read and made.
      made: values that the segment makes.
    """

    def __init__(self, graph: Graph, start: int) -> None:
        self.graph = graph
        self.start = start
        self.base: Place | None = None
        self.channels = 0
        self.dtype: Any = None
        self.fields: dict[Any, Fields] = {}
        self.made: set[Any] = set()

    def through(self, op: Operation) -> None:
        """Goes on by an operation.

        Raises:
          Refusal: it cannot be split together with those before it.
        """
        if op.fields is None:
            raise Refusal
        for v in op.reads:
            if v not in self.fields:
                self._take_in(v)
        fields = _after(_join([self.fields[v] for v in op.reads]), op.fields)
        self.fields |= dict.fromkeys(op.eqn.outvars, fields)
        self.made.update(op.eqn.outvars)

    def _take_in(self, v: Any) -> None:
        """Adds a value made before the segment to its input, if it fits in."""
        place, dtype = self.graph.places.get(v), v.aval.dtype
        real = jnp.issubdtype(dtype, jnp.floating)
        if place is None or not real or self.dtype not in (None, dtype):
            raise Refusal
        base, channels = self.base or place, math.prod(self.graph.channels(v))
        if finer := factors(place, base):
            self.fields[v] = _finer(finer)
            self.channels += channels * math.prod(finer)
        elif finer := factors(base, place):
            step, base = _finer(finer), place
            self.fields = {u: _after(step, own) for u, own in self.fields.items()}
            self.fields[v] = _finer((1, 1))
            self.channels = self.channels * math.prod(finer) + channels
        else:
            raise Refusal
        self.base, self.dtype = base, dtype

    def fields_of(self, output: Packing) -> Fields:
        """Returns the receptive fields of an output on the input."""
        fields = []
        for v, (rows, columns) in zip(output.variables, output.finer, strict=True):
            finer = (Field(rows, 0, rows), Field(columns, 0, columns))
            fields.append(_after(self.fields[v], finer))
        return _join(fields)

    def segment(
        self, end: int, output: Packing, fields: Fields, grid: Sizes, r: int
    ) -> CodedSegment | None:
        """Returns the segment up to a cut; None where a piece would be the whole.

        Its round has the price of a linear code, r sums of k pieces: as many operations
        for each value of a piece to encode, and of a share to decode.
        """
        assert self.base is not None
        sizes = zip(fields, self.base.sizes, output.base.sizes, grid, strict=True)
        try:
            plans = [plan_axis(f, size=n, out=m, parts=p) for f, n, m, p in sizes]
        except ValueError:
            return None
        piece = math.prod(plan.window for plan in plans) * self.channels
        share = math.prod(plan.share for plan in plans) * output.channels
        missing = [
            (plan.size - plan.window) * float(stride)
            for plan, stride in zip(plans, self.base.strides, strict=True)
        ]
        price = float(r * (2 * math.prod(grid) - 1))
        trip = Round(
            device_flops=self.graph.piece_flops(self.start, end, *missing),
            bytes_in=ITEMSIZE * piece,
            bytes_out=ITEMSIZE * share,
            encode_flops=price * piece,
            decode_flops=price * share,
        )
        flops = self.graph.flops(self.start, end)
        return CodedSegment(self.start, end, grid, flops, trip)


def _finer(factors: Sizes) -> Fields:
    """Returns the fields of values that are finer than the input by some factors."""
    rows, columns = (Field(Fraction(1, n), Fraction(1 - n, n), 1) for n in factors)
    return rows, columns


def _after(fields: Fields, steps: Fields) -> Fields:
    rows, columns = map(Field.after, fields, steps)
    return rows, columns


def _join(fields: list[Fields]) -> Fields:
    rows, columns = map(join_fields, zip(*fields, strict=True))
    return rows, columns
