"""The text of an optimised program, read: its instructions, their bytes and products.

Bytes are those of HBM: operands and results that a compiler keeps in a TPU's vector
memory (`S(1)` in their layout) are not counted, and padding to tiles is. The body of a
loop counts once, and of a conditional the branch that moves the most.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterator
from typing import NamedTuple

ARRAY = re.compile(r"\b(pred|[a-z]+\d\w*)\[([\d,]*)\](?:\{([^{}]*)\})?")
DEVICES = re.compile(r"(?:replica_count|num_partitions)=(\d+)")
INSTRUCTION = re.compile(r"\s*(ROOT )?%?([\w.\-]+) = (.*)")
OPCODE = re.compile(r"([a-z][\w\-]*)\(")
COMPUTATION = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*-> .*\{")
CALLED = re.compile(
    r"\b(?:body|condition|to_apply|calls|true_computation|false_computation)"
    r"=%?([\w.\-]+)"
)
TARGET = re.compile(r'custom_call_target="([^"]*)"')
BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
TILE = re.compile(r"T\(([\d,]+)\)")

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
FREE = frozenset(
    "parameter constant tuple get-tuple-element bitcast after-all partition-id "
    "replica-id iota async-update conditional add-dependency opt-barrier".split()
)


class Instruction(NamedTuple):
    """An instruction of a program.

    Attributes:
      name: of it.
      opcode: as `all-to-all-start`.
      types: the text of its result's type.
      operands: names.
      attributes: the text behind the operands.
      number: of a parameter.
      root: whether it is the result of its computation.
      target: of a custom call, else empty.
    """

    name: str
    opcode: str
    types: str
    operands: tuple[str, ...]
    attributes: str
    number: int = -1
    root: bool = False
    target: str = ""


class Module:
    """An optimised program.

    Attributes:
      computations: the instructions of each, by its name.
      entry: the name of the one that the program begins with.
      devices: how many run it together.

    Args:
      text: as `compiled.as_text()` returns it. No two instructions have one name there,
        also in different computations.
    """

    def __init__(self, text: str) -> None:
        self.computations: dict[str, list[Instruction]] = {}
        self.entry = ""
        head = text.split("\n", 1)[0]
        self.devices = math.prod(map(int, DEVICES.findall(head)))
        current: list[Instruction] = []
        for line in text.splitlines():
            if header := COMPUTATION.match(line):
                current = self.computations.setdefault(header[2], [])
                self.entry = header[2] if header[1] else self.entry
            elif parsed := _instruction(line):
                current.append(parsed)

    def all(self) -> Iterator[Instruction]:
        """Yields the instructions of all computations, fused ones too."""
        for instructions in self.computations.values():
            yield from instructions

    def run(self, name: str | None = None) -> Iterator[Instruction]:
        """Yields the instructions in the order in which they run: without parts of
        fusions, a loop's body once, of a conditional the branch of most bytes.

        Args:
          name: the computation to begin with; the program's own if None.
        """
        for instruction in self.computations.get(name or self.entry, ()):
            yield instruction
            if instruction.opcode == "conditional":
                listed = BRANCHES.search(instruction.attributes)
                branches = CALLED.findall(instruction.attributes)
                if listed:
                    branches = re.findall(r"%?([\w.\-]+)", listed[1])
                dearest = max(branches, key=self._bytes_of, default=None)
                yield from self.run(dearest) if dearest else ()
            elif instruction.opcode in CALLERS:
                for called in CALLED.findall(instruction.attributes):
                    yield from self.run(called)

    def moved(self) -> int:
        """Returns the bytes of HBM that are read and written, by one device."""
        return self._bytes_of(self.entry)

    @functools.cached_property
    def by_name(self) -> dict[str, Instruction]:
        """Returns the instructions of all computations by their names."""
        return {x.name: x for x in self.all()}

    def _bytes_of(self, name: str) -> int:
        return sum(self.bytes_of(x) for x in self.run(name))

    def bytes_of(self, instruction: Instruction) -> int:
        """Returns the bytes of HBM that an instruction reads and writes."""
        opcode = instruction.opcode
        if opcode in FREE or opcode in CALLERS or opcode.endswith("-done"):
            return 0
        if instruction.target in NOTES:
            return 0
        if opcode == "copy-start":  # its result names both ends
            return sum(map(array_bytes, arrays(instruction.types)[:2]))
        if opcode == "slice-start":  # likewise, and a part is read
            to = arrays(instruction.types)[1]
            return array_bytes(to) + array_bytes(to._replace(layout=""))
        results = arrays(instruction.types)
        if instruction.target.startswith(("__cublas", "__cudnn")) and results[1:]:
            results.pop()  # room to work in, the last of them
        written = sum(map(array_bytes, results))
        if opcode.endswith("-start") and opcode != "all-reduce-start":
            return written  # operands and results, together
        if opcode == "fusion":
            return self._fused(instruction, written)
        operands = list(map(self._size_of, instruction.operands))
        if opcode in PARTS:
            return min(operands[0], written) + sum(operands[1:]) + written
        if opcode == UPDATE:  # in place
            return 2 * operands[1]
        return sum(operands) + written

    def _fused(self, fusion: Instruction, written: int) -> int:
        """Returns the bytes of a fusion, of operands that it takes parts of those."""
        inner = self._inside(fusion)
        users: dict[str, list[Instruction]] = {}
        for instruction in inner:
            for operand in instruction.operands:
                users.setdefault(operand, []).append(instruction)
        numbered = {x.number: x for x in inner if x.opcode == "parameter"}
        total, updated = written, None
        root = next((x for x in inner if x.root), None)
        if root is not None and root.opcode == UPDATE:
            # In place, where the buffer is an operand or an empty one.
            buffer = self.by_name[root.operands[0]]
            if buffer.opcode == "parameter" or buffer.target in NOTES:
                updated = buffer.name
            if updated and written:
                (update,) = self._arrays_of(root.operands[1])
                total = _part_bytes([update], update)
        for number, operand in enumerate(fusion.operands):
            parameter = numbered[number]
            if parameter.name != updated:
                size, parts = self._size_of(operand), _parts(users, parameter.name)
                if parts:
                    whole, *_ = arrays(parameter.types)
                    taken = [x for part in parts for x in arrays(part.types)]
                    size = min(size, _part_bytes(taken, whole))
                total += size
        return total

    def _inside(self, fusion: Instruction) -> list[Instruction]:
        """Returns the instructions of a fusion."""
        called = CALLED.search(fusion.attributes)
        return self.computations.get(called[1], []) if called else []

    def _size_of(self, name: str) -> int:
        return sum(map(array_bytes, self._arrays_of(name)))

    def _arrays_of(self, name: str) -> list[Array]:
        instruction = self.by_name.get(name)
        return arrays(instruction.types) if instruction else []

    def products(self) -> float:
        """Returns the floating point operations of matrix products and convolutions,
        two for each multiply-add, those with padding among them."""
        return sum(map(self._products, self.run()))

    def _products(self, instruction: Instruction) -> float:
        opcode, target = instruction.opcode, instruction.target
        if opcode == "fusion":
            return sum(map(self._products, self._inside(instruction)))
        if opcode == "convolution" or target.startswith("__cudnn$conv"):
            return self._convolution(instruction)
        if opcode != "dot" and not target.startswith("__cublas"):
            return 0.0
        left = self._arrays_of(instruction.operands[0])[0]
        # Those of cuBLAS stand inside its configuration.
        over = re.search(
            r'lhs_contracting_dims=\{([\d,]*)\}|"lhs_contracting_dimensions":\[([\d",]*)\]',
            instruction.attributes,
        )
        axes = re.findall(r"\d+", over[0]) if over else []
        contracted = math.prod(left.sizes[int(axis)] for axis in axes)
        return 2.0 * math.prod(arrays(instruction.types)[0].sizes) * contracted

    def _convolution(self, instruction: Instruction) -> float:
        labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", instruction.attributes)
        if labels is None:
            return 0.0
        first, second = (self._arrays_of(x)[0] for x in instruction.operands[:2])
        result = arrays(instruction.types)[0]
        # cuDNN's gradients keep the labels of the convolution that they belong to.
        kernel, outputs = second, result
        if instruction.target.endswith("BackwardFilter"):
            kernel, outputs = result, second
        elif instruction.target.endswith("BackwardInput"):
            outputs = first
        named = zip(kernel.sizes, labels[2], strict=False)
        taps = math.prod(size for size, label in named if label != "o")
        return 2.0 * math.prod(outputs.sizes) * taps


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


def arrays(types: str) -> list[Array]:
    """Returns the arrays in the text of a type, of a tuple all of them."""
    return [
        Array(dtype, tuple(map(int, re.findall(r"\d+", sizes))), layout)
        for dtype, sizes, layout in ARRAY.findall(types)
    ]


def array_bytes(array: Array) -> int:
    """Returns the bytes of HBM that an array takes, with the padding of its tiles; 0 of
    one in another memory."""
    order, _, more = array.layout.partition(":")
    if re.search(r"S\([1-9]", more):
        return 0
    sizes = [array.sizes[int(axis)] for axis in re.findall(r"\d+", order)]
    sizes = sizes or [*reversed(array.sizes)]  # the one that varies fastest first
    if tile := TILE.search(more):
        extents = [int(x) for x in tile[1].split(",")][::-1]
        sizes += [1] * (len(extents) - len(sizes))
        for i, extent in enumerate(extents):
            sizes[i] = -(-sizes[i] // extent) * extent
    return math.prod(sizes) * _bits(array) // 8


def _part_bytes(parts: list[Array], whole: Array) -> int:
    """Returns the bytes of parts of an array, without padding, in its own type."""
    return sum(math.prod(part.sizes) for part in parts) * _bits(whole) // 8


def _bits(array: Array) -> int:
    digits = re.search(r"\d+", array.dtype)
    return int(digits[0]) if digits else 8  # of pred


def _instruction(line: str) -> Instruction | None:
    match = INSTRUCTION.match(line)
    if match is None:
        return None
    root, name, rest = match.groups()
    # The result's type is an array, or a tuple in brackets.
    end = _closing(rest[1:]) + 2 if rest.startswith("(") else rest.find(" ")
    opcode = OPCODE.match(rest[end:].lstrip())
    if opcode is None:
        return None
    behind = rest[end:].lstrip()[opcode.end() :]
    close = _closing(behind)
    target = TARGET.search(behind, close)
    return Instruction(
        name,
        opcode[1],
        types=rest[:end],
        operands=tuple(re.findall(r"%([\w.\-]+)", behind[:close])),
        attributes=behind[close + 1 :],
        number=int(behind[:close]) if opcode[1] == "parameter" else -1,
        root=bool(root),
        target=target[1] if target else "",
    )


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


def _closing(text: str) -> int:
    """Returns the place of the bracket that closes one that stood before the text."""
    depth = 1
    for place, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return place
    return len(text)
