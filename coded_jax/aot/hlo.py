"""The text of an optimised program, read: its instructions, their bytes and products.

Bytes are those of HBM: operands and results that a compiler keeps in a TPU's vector
memory (`S(1)` in their layout) are not counted, and padding to tiles is. The body of a
loop counts once, and of a conditional the branch that moves the most.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

ARRAY = re.compile(r"\b(pred|[a-z]+\d\w*)\[([\d,]*)\](?:\{([^{}]*)\})?")
DEVICES = re.compile(r"(?:replica_count|num_partitions)=(\d+)")
COMPUTATION = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*-> .*\{")
INSTRUCTION = re.compile(
    r"\s*(?P<root>ROOT )?%?(?P<name>[\w.\-]+) = (?P<types>.*?) "
    r"(?P<opcode>[a-z][\w\-]*)\((?P<inside>[^)]*)\)(?P<attributes>.*)"
)
NAME = re.compile(r"%([\w.\-]+)")
CALLED = re.compile(
    r"\b(?:body|condition|to_apply|calls|\w+_computations?)=(%[\w.\-]+|\{[^}]*\})"
)
TARGET = re.compile(r'custom_call_target="([^"]*)"')
TILE = re.compile(r"T\(([\d,]+)\)")
LABELS = re.compile(r"dim_labels=(\w+)_(\w+)->(\w+)")
# Those of cuBLAS stand inside its configuration.
CONTRACTED = re.compile(r'lhs_contracting_dim(?:s=\{([\d,]*)\}|ensions":\[([\d",]*)\])')

PARTS = frozenset(("dynamic-slice", "gather", "slice"))
"""Instructions that read a part of their first operand."""

FORMS = frozenset("bitcast convert copy reshape transpose".split())
"""Instructions of which, inside a fusion, no more is computed than is read of them."""

UPDATE = "dynamic-update-slice"

CALLERS = frozenset("while call call-start async-start".split())
"""Instructions that run the computations which they name, but for conditionals."""

# Custom calls that tell a TPU's compiler something, and move nothing.
NOTES = frozenset(
    "AllocateBuffer AssumeGatherIndicesInBound ConcatBitcast PrepareAsyncCallDone "
    "PrepareAsyncCallStart".split()
)

# Instructions that move nothing themselves.
FREE = CALLERS | frozenset(
    "parameter constant tuple get-tuple-element bitcast after-all partition-id "
    "replica-id iota async-update conditional add-dependency opt-barrier".split()
)


class Array(NamedTuple):
    """An array of a program.

    Attributes:
      dtype: as `f32`.
      sizes: of its axes.
      layout: the text in braces behind them; empty if none is said.
    """

    dtype: str
    sizes: tuple[int, ...]
    layout: str = ""

    @property
    def count(self) -> int:
        """Number of its values."""
        return math.prod(self.sizes)

    @property
    def bits(self) -> int:
        """Bits of a value."""
        digits = re.search(r"\d+", self.dtype)
        return int(digits[0]) if digits else 8  # of pred

    @property
    def bytes(self) -> int:
        """Bytes of HBM, with the padding of its tiles; 0 in another memory."""
        order, _, more = self.layout.partition(":")
        if re.search(r"S\([1-9]", more):
            return 0
        # The axis that varies fastest first, as the last one of a tile.
        sizes = [self.sizes[int(axis)] for axis in re.findall(r"\d+", order)]
        tile = TILE.search(more)
        extents = [*map(int, tile[1].split(","))][::-1] if tile else []
        padded = itertools.zip_longest(sizes or self.sizes, extents, fillvalue=1)
        count = math.prod(-(-size // extent) * extent for size, extent in padded)
        return count * self.bits // 8


def arrays(types: str) -> list[Array]:
    """Returns the arrays in the text of a type, of a tuple all of them."""
    return [
        Array(dtype, tuple(map(int, re.findall(r"\d+", sizes))), layout)
        for dtype, sizes, layout in ARRAY.findall(types)
    ]


def total_bytes(arrays: Iterable[Array]) -> int:
    """Returns the bytes of HBM that arrays take."""
    return sum(array.bytes for array in arrays)


class Instruction(NamedTuple):
    """An instruction of a program.

    Attributes:
      root: a text if it is the result of its computation, else None.
      name: of it.
      types: the text of its result's type.
      opcode: as `all-to-all-start`.
      inside: the text in brackets: operands, or the number of a parameter.
      attributes: the text behind it.
    """

    root: str | None
    name: str
    types: str
    opcode: str
    inside: str
    attributes: str

    @property
    def results(self) -> list[Array]:
        """The arrays of its result."""
        return arrays(self.types)

    @property
    def operands(self) -> list[str]:
        """The names of its operands."""
        return NAME.findall(self.inside)

    @property
    def called(self) -> list[str]:
        """The names of the computations that it runs, or some of them."""
        return NAME.findall(" ".join(CALLED.findall(self.attributes)))

    @property
    def target(self) -> str:
        """The target of a custom call, else empty."""
        custom = self.opcode.startswith("custom-call")
        match = TARGET.search(self.attributes) if custom else None
        return match[1] if match else ""


class Module:
    """An optimised program.

    Attributes:
      computations: the instructions of each, by its name.
      entry: the name of the one that the program begins with.
      by_name: the instructions of all computations, fused ones too.
      devices: how many run it together.

    Args:
      text: as `compiled.as_text()` returns it. No two instructions have one name there,
        also in different computations.
    """

    def __init__(self, text: str) -> None:
        self.computations: dict[str, list[Instruction]] = {}
        self.entry, current = "", []
        self.devices = math.prod(map(int, DEVICES.findall(text.partition("\n")[0])))
        for line in text.splitlines():
            if header := COMPUTATION.match(line):
                current = self.computations[header[2]] = []
                self.entry = header[2] if header[1] else self.entry
            elif match := INSTRUCTION.match(line):
                current.append(Instruction(**match.groupdict()))
        self.by_name = {x.name: x for own in self.computations.values() for x in own}

    def run(self, name: str | None = None) -> Iterator[Instruction]:
        """Yields the instructions in the order in which they run: without parts of
        fusions, a loop's body once, of a conditional the branch of most bytes.

        Args:
          name: the computation to begin with; the program's own if None.
        """
        for instruction in self.computations[name or self.entry]:
            yield instruction
            if instruction.opcode == "conditional":
                yield from self.run(max(instruction.called, key=self.moved))
            elif instruction.opcode in CALLERS:
                for called in instruction.called:
                    yield from self.run(called)

    def moved(self, name: str | None = None) -> int:
        """Returns the bytes of HBM that one device reads and writes; `name` as of
        `run`."""
        return sum(map(self._bytes_of, self.run(name)))

    def _bytes_of(self, instruction: Instruction) -> int:
        opcode, results = instruction.opcode, instruction.results
        if opcode in FREE or opcode.endswith("-done") or instruction.target in NOTES:
            return 0
        if opcode == "copy-start":  # its result names both ends
            return total_bytes(results[:2])
        if opcode == "slice-start":  # likewise, and a part is read
            return results[1].bytes + results[1]._replace(layout="").bytes
        if instruction.target.startswith(("__cublas", "__cudnn")) and results[1:]:
            results.pop()  # room to work in, the last of them
        written = total_bytes(results)
        if opcode.endswith("-start") and opcode != "all-reduce-start":
            return written  # operands and results, together
        if opcode == "fusion":
            return self._fused(instruction, written)
        first, *others = [self._size_of(x) for x in instruction.operands] or [0]
        if opcode in PARTS:
            return min(first, written) + sum(others) + written
        if opcode == UPDATE:  # in place
            return 2 * others[0]
        return first + sum(others) + written

    def _fused(self, fusion: Instruction, written: int) -> int:
        """Returns the bytes of a fusion, of operands that it takes parts of those."""
        inner = self.computations[fusion.called[0]]
        users = defaultdict(list)
        for instruction in inner:
            for operand in instruction.operands:
                users[operand].append(instruction)
        total, updated = written, None
        root = next(x for x in inner if x.root)
        if root.opcode == UPDATE:
            # In place, where the buffer is an operand or an empty one.
            buffer, update = (self.by_name[x] for x in root.operands[:2])
            if buffer.opcode == "parameter" or buffer.target in NOTES:
                updated = buffer
                part = update.results[0]
                total = part.count * part.bits // 8 if written else 0
        parameters = {int(x.inside): x for x in inner if x.opcode == "parameter"}
        for number, operand in enumerate(fusion.operands):
            parameter, size = parameters[number], self._size_of(operand)
            if parts := _parts(users, parameter.name):
                # Without padding, in the type of the operand itself.
                count = sum(array.count for part in parts for array in part.results)
                size = min(size, count * parameter.results[0].bits // 8)
            total += size if parameter is not updated else 0
        return total

    def _size_of(self, name: str) -> int:
        return total_bytes(self.by_name[name].results)

    def products(self) -> float:
        """Returns the floating point operations of matrix products and convolutions,
        two for each multiply-add, those with padding among them."""
        return 2.0 * sum(map(self._products, self.run()))

    def _products(self, instruction: Instruction) -> int:
        """Returns the multiply-adds of an instruction, or of a fusion."""
        opcode, target = instruction.opcode, instruction.target
        if opcode == "fusion":
            return sum(map(self._products, self.computations[instruction.called[0]]))
        convolves = opcode == "convolution" or target.startswith("__cudnn$conv")
        if not convolves and opcode != "dot" and not target.startswith("__cublas"):
            return 0
        result = instruction.results[0]
        first, second = (self.by_name[x].results[0] for x in instruction.operands[:2])
        if not convolves:
            axes = CONTRACTED.search(instruction.attributes)
            contracted = re.findall(r"\d+", axes[0]) if axes else []
            return result.count * math.prod(first.sizes[int(x)] for x in contracted)
        labels = LABELS.search(instruction.attributes)
        if labels is None:
            return 0
        # cuDNN's gradients keep the labels of the convolution that they belong to.
        kernel, outputs = second, result
        if target.endswith("BackwardFilter"):
            kernel, outputs = result, second
        elif target.endswith("BackwardInput"):
            outputs = first
        return outputs.count * kernel.count // kernel.sizes[labels[2].index("o")]


def _parts(users: dict[str, list[Instruction]], name: str) -> list[Instruction] | None:
    """Returns the instructions of a fusion that read parts of one of its operands, all
    there are; None where the whole of it is read."""
    parts = []
    for user in users.get(name, ()):
        if user.opcode in PARTS and user.operands[0] == name:
            parts.append(user)
        else:
            further = _parts(users, user.name) if user.opcode in FORMS else None
            if not further:
                return None
            parts += further
    return parts
