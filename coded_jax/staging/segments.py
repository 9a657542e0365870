"""Segments of a network that can be one coded stage each, and what they would cost.

A cut stands before an operation; a segment lies between two cuts. What it reads of
values made before it is its input, what later operations read of its values its output;
each is packed into one array, the channels one behind the other. All else that is
needed later the client keeps, see `types.State`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
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


class Span(NamedTuple):
    """Operations between two cuts whose input and output are one array each.

    Attributes:
      start, end: numbers of the first operation and of the one behind the last.
      input: place of the input.
      channels: of the input.
      output: the values of the output.
      fields: receptive fields of the output on the input.
    """

    start: int
    end: int
    input: Place
    channels: int
    output: Packing
    fields: Fields


def cuts(graph: Graph) -> list[int]:
    """Returns the places where a segment may begin or end, in their order."""
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


def segments(graph: Graph, k: int, r: int) -> Iterator[CodedSegment]:
    """Yields every segment that can be split into k pieces.

    Its round has the price of a linear code, r sums of k pieces: as many operations for
    each value of a piece to encode, and of a share to decode.
    """
    for spans in spans_by_start(graph):
        for span in spans:
            found = [_segment(graph, span, grid, r) for grid in grids_of(k)]
            yield from filter(None, found)
            if not any(found):
                break


def grids_of(k: int) -> list[Sizes]:
    """Returns the grids of k pieces."""
    return [(k // columns, columns) for columns in range(1, k + 1) if k % columns == 0]


def spans_by_start(graph: Graph) -> Iterator[Iterator[Span]]:
    """Yields the spans from every cut, the shortest first."""
    places = cuts(graph)
    for number in range(len(places)):
        yield _Walk(graph).spans(places[number:])


def _segment(graph: Graph, span: Span, grid: Sizes, r: int) -> CodedSegment | None:
    """Returns a span split by a grid; None where a piece would be the whole."""
    start, end, place, *_ = span
    sizes = zip(span.fields, place.sizes, span.output.base.sizes, grid, strict=True)
    try:
        plans = [plan_axis(f, size=n, out=m, parts=p) for f, n, m, p in sizes]
    except ValueError:
        return None
    piece = math.prod(plan.window for plan in plans) * span.channels
    share = math.prod(plan.share for plan in plans) * span.output.channels
    missing = [
        (plan.size - plan.window) * float(stride)
        for plan, stride in zip(plans, place.strides, strict=True)
    ]
    price = float(r * (2 * math.prod(grid) - 1))
    trip = Round(
        device_flops=graph.piece_flops(start, end, *missing),
        bytes_in=ITEMSIZE * piece,
        bytes_out=ITEMSIZE * share,
        encode_flops=price * piece,
        decode_flops=price * share,
    )
    return CodedSegment(start, end, grid, graph.flops(start, end), trip)


class _Walk:
    """The receptive fields of values on the input of a segment that begins at a cut.

    Values of the input that are finer than others, by whole factors, are packed with
    more channels.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.base: Place | None = None  # of the input, once some of it is read
        self.channels = 0
        self.dtype: Any = None
        self.fields: dict[Any, Fields] = {}

    def spans(self, places: Sequence[int]) -> Iterator[Span]:
        """Goes from the first cut to the others; ends where nothing can be split."""
        start, live = places[0], []
        for begin, end in itertools.pairwise(places):
            operations = self.graph.operations[begin:end]
            if not all(map(self.through, operations)):
                return
            live += [v for op in operations for v in op.eqn.outvars]
            live = [v for v in live if self.graph.last_use.get(v, -1) >= end]
            output = self.graph.packing(live)
            if output is None or self.base is None:
                continue
            packed = []
            for v, (rows, columns) in zip(live, output.finer, strict=True):
                finer = (Field(rows, 0, rows), Field(columns, 0, columns))
                packed.append(_after(self.fields[v], finer))
            if fields := _join(packed):
                yield Span(
                    start=start,
                    end=end,
                    input=self.base,
                    channels=self.channels,
                    output=output,
                    fields=fields,
                )

    def through(self, op: Operation) -> bool:
        """Goes on by an operation; returns False where it cannot be split."""
        if op.fields is None:
            return False
        if not all(v in self.fields or self._take_in(v) for v in op.reads):
            return False
        joined = _join([self.fields[v] for v in op.reads])
        if joined is None:
            return False
        self.fields |= dict.fromkeys(op.eqn.outvars, _after(joined, op.fields))
        return True

    def _take_in(self, v: Any) -> bool:
        """Adds a value made before the segment to its input, if it fits in."""
        place, dtype = self.graph.places.get(v), v.aval.dtype
        if place is None or not jnp.issubdtype(dtype, jnp.floating):
            return False
        if self.dtype not in (None, dtype):  # one array has one
            return False
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
            return False
        self.base, self.dtype = base, dtype
        return True


def _finer(factors: Sizes) -> Fields:
    """Returns the fields of values that are finer than the input by some factors."""
    rows, columns = (Field(Fraction(1, n), Fraction(1 - n, n), 1) for n in factors)
    return _after((Field(), Field()), (rows, columns))


def _after(fields: Fields, steps: Fields) -> Fields:
    rows, columns = map(Field.after, fields, steps)
    return rows, columns


def _join(fields: list[Fields]) -> Fields | None:
    """Returns the field that covers all fields; None if their strides differ."""
    if len(fields) == 1:
        return fields[0]
    try:
        rows, columns = map(join_fields, zip(*fields, strict=True))
    except Refusal:
        return None
    return rows, columns
