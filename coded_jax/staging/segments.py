"""Segments of a network that can be one coded stage each, and what they would cost.

A cut stands before an operation; a segment lies between two cuts. What it reads of
values made before it is its input, what later operations read of its values its output;
each is packed into one array, the channels one behind the other. All else that is
needed later the client keeps, see `types.State`.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from coded_jax.inference.costs import Round
from coded_jax.splitting.plan import shortest_window
from coded_jax.splitting.receptive_field import Fields
from coded_jax.splitting.traces import Field, Refusal, join_fields
from coded_jax.staging.graph import Graph, Operation, Place, factors

Grid = tuple[int, int]

HEAVY = frozenset(
    "conv_general_dilated dot_general reduce_window reduce_window_max "
    "reduce_window_min reduce_window_sum".split()
)
"""Operations before which a cut may stand; elementwise ones go with what is before."""


@dataclasses.dataclass(frozen=True)
class CodePrice:
    """The price of a code, for each value of a piece and of a share.

    Attributes:
      encode: operations of the client for each value of a piece.
      decode: likewise of a share, where r results are lost.
      itemsize: bytes of a value that is sent.
    """

    encode: float
    decode: float
    itemsize: int = 4

    @classmethod
    def linear(cls, k: int, r: int) -> CodePrice:
        """Returns the price of r sums of k pieces, and of solving for r shares."""
        each = float(r * (2 * k - 1))
        return cls(each, each)


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
    grid: Grid
    flops: float
    trip: Round


class Shape(NamedTuple):
    """Input or output of a segment: rows and columns, and channels of all values."""

    sizes: tuple[int, int]
    channels: int


Output = tuple[Shape, Fields]
"""Output of a segment, and its receptive fields on the input."""


class Work:
    """Sums of operations over the first operations of a network.

    The work of a piece is that of the whole, but for the rows and columns of each
    operation's result that it has not: so many fewer pixels, over its stride.
    """

    def __init__(self, graph: Graph) -> None:
        rows = [(0.0, 0.0, 0.0, 0.0)]
        for op in graph.operations:
            place = graph.places.get(op.eqn.outvars[0])
            less = (0.0, 0.0)
            if place is not None and min(place.sizes) > 0:
                less = tuple(
                    float(1 / (size * stride))
                    for size, stride in zip(place.sizes, place.strides, strict=True)
                )
            rows.append(
                (op.flops, op.flops * less[0], op.flops * less[1])
                + (op.flops * less[0] * less[1],)
            )
        self._sums = np.cumsum(np.array(rows), axis=0)

    def whole(self, start: int, end: int) -> float:
        """Returns the work of operations `start` up to `end`."""
        return float(self._sums[end, 0] - self._sums[start, 0])

    def piece(self, start: int, end: int, rows: float, columns: float) -> float:
        """Returns the work of a piece that has so many pixels less than the image."""
        all_, by_row, by_column, by_both = self._sums[end] - self._sums[start]
        return float(
            all_ - by_row * rows - by_column * columns + by_both * rows * columns
        )


def cuts(graph: Graph) -> list[int]:
    """Returns the places where a segment may begin or end, in their order."""
    found = {0, len(graph.operations)}
    for i, op in enumerate(graph.operations):
        if op.fields is None:
            found |= {i, i + 1}
        elif op.eqn.primitive.name in HEAVY or _converts(op.eqn):
            found.add(i)
    return sorted(found)


def _converts(eqn: Any) -> bool:
    """Returns whether an equation gives another dtype, as before a mean of bfloat16.

    Behind it a value and its copy, of two dtypes, do not fit into one array.
    """
    into = eqn.params.get("new_dtype")
    conversion = eqn.primitive.name == "convert_element_type"
    return conversion and into != eqn.invars[0].aval.dtype


def segments(
    graph: Graph, work: Work, k: int, price: CodePrice
) -> Iterator[CodedSegment]:
    """Yields every segment that can be split into k pieces.

    Args:
      graph: the network.
      work: of its operations.
      k: data pieces.
      price: of the code.
    """
    grids = grids_of(k)
    for walk, outputs in walks(graph):
        for end, (shape, fields) in outputs:
            fits = False
            for grid in grids:
                found = _segment(walk, end, grid, shape, fields, work, price)
                if found is not None:
                    fits = True
                    yield found
            if not fits:
                break


def grids_of(k: int) -> list[Grid]:
    """Returns the grids of k pieces."""
    return [(k // columns, columns) for columns in range(1, k + 1) if k % columns == 0]


def walks(graph: Graph) -> Iterator[tuple[Walk, Iterator[tuple[int, Output]]]]:
    """Yields a walk from every cut, and the cuts to which it goes with the outputs."""
    places = cuts(graph)
    for number, start in enumerate(places):
        walk = Walk(graph, start)
        yield walk, _outputs(walk, places[number:])


def _outputs(walk: Walk, places: Sequence[int]) -> Iterator[tuple[int, Output]]:
    for end, following in itertools.pairwise(places):
        if not walk.through(walk.graph.operations[end:following]):
            return
        if output := walk.output(following):
            yield following, output


def share_of(size: int, parts: int) -> int | None:
    """Returns the positions of each of so many equal parts; None if one had none."""
    share = -(-size // parts)
    return share if (parts - 1) * share < size else None


def _segment(
    walk: Walk,
    end: int,
    grid: Grid,
    output: Shape,
    fields: Fields,
    work: Work,
    price: CodePrice,
) -> CodedSegment | None:
    """Returns a segment split by a grid; None where a piece would be the whole."""
    assert walk.base is not None
    windows, shares = [], []
    for field, size, out, parts in zip(
        fields, walk.base.sizes, output.sizes, grid, strict=True
    ):
        share = share_of(out, parts)
        if share is None:
            return None
        firsts = [min(i * share, out - share) for i in range(parts)]
        needed = [field.window(a, a + share) for a in firsts]
        needed = [(max(0, low), min(size, high)) for low, high in needed]
        window = shortest_window(needed, field.step, size)
        if window >= size and parts > 1:
            return None
        windows.append(window)
        shares.append(share)
    less = [
        (size - window) * float(stride)
        for size, window, stride in zip(
            walk.base.sizes, windows, walk.base.strides, strict=True
        )
    ]
    piece = math.prod(windows) * walk.channels
    share = math.prod(shares) * output.channels
    trip = Round(
        work.piece(walk.start, end, *less),
        price.itemsize * piece,
        price.itemsize * share,
        price.encode * piece,
        price.decode * share,
    )
    return CodedSegment(walk.start, end, grid, work.whole(walk.start, end), trip)


class Walk:
    """The receptive fields of values on the input of a segment that begins at a cut.

    Values of the input that are finer than others, by whole factors, are packed with
    more channels.
    """

    def __init__(self, graph: Graph, start: int) -> None:
        self.graph, self.start = graph, start
        self.base: Place | None = None
        self.channels = 0
        self.dtype: Any = None
        self._fields: dict[Any, Fields] = {}
        self._open: list[Any] = []  # values made so far that are still needed

    def through(self, operations: tuple[Operation, ...]) -> bool:
        """Goes on by some operations; returns False where one cannot be split."""
        for op in operations:
            if op.fields is None:
                return False
            if not all(v in self._fields or self._take_in(v) for v in op.reads):
                return False
            joined = _join([self._fields[v] for v in op.reads])
            if joined is None:
                return False
            fields = _after(joined, op.fields)
            for v in op.eqn.outvars:
                self._fields[v] = fields
                self._open.append(v)
        return True

    def _take_in(self, v: Any) -> bool:
        """Adds a value made before the segment to its input, if it fits in."""
        place, dtype = self.graph.places.get(v), v.aval.dtype
        if place is None or not jnp.issubdtype(dtype, jnp.floating):
            return False
        if self.dtype not in (None, dtype):  # one array has one
            return False
        self.dtype = dtype
        channels = math.prod(self.graph.channels(v))
        base = self.base or place
        if finer := factors(place, base):
            self._fields[v] = _finer(finer)
            self.channels += channels * math.prod(finer)
        elif finer := factors(base, place):
            step = _finer(finer)
            self._fields = {u: _after(step, own) for u, own in self._fields.items()}
            self._fields[v] = _finer((1, 1))
            self.channels = self.channels * math.prod(finer) + channels
            base = place
        else:
            return False
        self.base = base
        return True

    def output(self, end: int) -> Output | None:
        """Returns the output up to a cut, None if it does not fit into one array."""
        last_use = self.graph.last_use
        self._open = [v for v in self._open if last_use.get(v, -1) >= end]
        if (base := self.graph.common_place(self._open)) is None:
            return None
        channels, packed = 0, []
        for v in self._open:
            finer = factors(self.graph.places[v], base)
            rows, columns = (Field(n, 0, n) for n in finer)  # type: ignore
            packed.append(_after(self._fields[v], (rows, columns)))
            channels += math.prod(self.graph.channels(v)) * math.prod(finer)
        fields = _join(packed)
        return fields and (Shape(base.sizes, channels), fields)


def _finer(factors: tuple[int, int]) -> Fields:
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
