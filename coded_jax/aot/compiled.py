"""Figures of a compiled program: operations, bytes, memory, collectives, bounds."""

from __future__ import annotations

import dataclasses
import math
import re
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax

from coded_jax.aot.chips import Chip
from coded_jax.aot.hlo import Instruction, Module, total_bytes

# What leaves a device, as a share of the array that a collective has for its result,
# of p devices: those of ring algorithms, which no other undercuts.
SENT = {
    "all-to-all": lambda p: (p - 1) / p,
    "all-gather": lambda p: (p - 1) / p,
    "reduce-scatter": lambda p: float(p - 1),  # its result is a part
    "all-reduce": lambda p: 2 * (p - 1) / p,
    "collective-permute": lambda p: 1.0,
}
HOST = re.compile(r"callback|host", re.IGNORECASE)
CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')


@dataclasses.dataclass(frozen=True)
class Collectives:
    """The collectives of one kind in a program.

    Attributes:
      count: how many there are; those in a loop count once.
      sent: bytes that leave a device in all of them.
    """

    count: int
    sent: int


@dataclasses.dataclass(frozen=True)
class Figures:
    """The figures of one device of a compiled program; the body of a loop counts once.

    Attributes:
      operations: floating point operations: as the compiler counts them where it says,
        else of matrix products and convolutions alone.
      moved: bytes of HBM that are read and written, see `hlo`.
      cycles: sum of the compiler's own estimates for its instructions; None where it
        has none. No measure.
      memory: bytes of `arguments`, `outputs` (those that are not among the arguments),
        `temporaries` and `code`.
      collectives: by kind, as `all-to-all`.
      host: instructions that wait for the host, or send to it.
      fusions: how many there are.
    """

    operations: float
    moved: int
    cycles: int | None
    memory: dict[str, int]
    collectives: dict[str, Collectives]
    host: tuple[str, ...]
    fusions: int

    @property
    def needed(self) -> int:
        """Returns the bytes of HBM that the program needs at once."""
        return sum(self.memory.values())

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Figures:
        """Returns the figures that `dataclasses.asdict` has written."""
        kinds = fields["collectives"].items()
        collectives = {kind: Collectives(**x) for kind, x in kinds}
        host = tuple(fields["host"])
        return cls(**{**fields, "collectives": collectives, "host": host})


class Bound(NamedTuple):
    """The seconds below which a program cannot end on a chip (Williams et al. 2009).

    Attributes:
      compute: operations over the chip's peak.
      memory: bytes of HBM over its bandwidth.
      links: bytes of collectives over the bandwidth to other chips.
    """

    compute: float
    memory: float
    links: float

    @property
    def seconds(self) -> float:
        """Returns the largest of the three."""
        return max(self)

    @property
    def name(self) -> str:
        """Returns the name of the largest of the three bounds."""
        return self._fields[self.index(self.seconds)]


def figures_of(compiled: jax.stages.Compiled) -> Figures:
    """Reads the figures of a compiled program."""
    module = Module(compiled.as_text() or "")
    analysis: Any = compiled.cost_analysis() or {}  # none for CUDA
    stats: Any = compiled.memory_analysis()
    run = [*module.run()]
    cycles = [int(x) for own in run for x in CYCLES.findall(own.attributes)]
    return Figures(
        operations=float(analysis.get("flops") or module.products()),
        moved=module.moved(),
        cycles=sum(cycles) if cycles else None,
        memory={
            "arguments": stats.argument_size_in_bytes,
            "outputs": stats.output_size_in_bytes - stats.alias_size_in_bytes,
            "temporaries": stats.temp_size_in_bytes,
            "code": stats.generated_code_size_in_bytes,
        },
        collectives=collectives_of(module),
        host=tuple(name for name, x in module.by_name.items() if _asks_host(x)),
        fusions=sum(x.opcode == "fusion" for x in run),
    )


def _asks_host(instruction: Instruction) -> bool:
    if instruction.opcode in ("send", "recv"):  # else to another device
        return "is_host_transfer=true" in instruction.attributes
    feeds = instruction.opcode in ("infeed", "outfeed")
    return feeds or HOST.search(instruction.target) is not None


def collectives_of(module: Module) -> dict[str, Collectives]:
    """Counts the collectives of a program by kind, with the bytes that a device sends.

    Args:
      module: the program.
    """
    sent: dict[str, list[float]] = defaultdict(list)
    for instruction in module.by_name.values():
        # Of a pair of start and done the first has the groups, the second the results.
        kind = instruction.opcode.removesuffix("-done")
        if kind in SENT:
            paired = instruction.opcode != kind
            begun = module.by_name[instruction.operands[0]] if paired else instruction
            devices = _group_size(begun.attributes) or module.devices
            plain = (x._replace(layout="") for x in instruction.results)
            sent[kind].append(SENT[kind](devices) * total_bytes(plain))
    return {kind: Collectives(len(x), round(sum(x))) for kind, x in sent.items()}


def _group_size(attributes: str) -> int:
    """Returns the number of devices in a group of a collective; 0 if all exchange, or
    pairs do."""
    if listed := re.search(r"replica_groups=\{\{([\d,]+)\}", attributes):
        return len(listed[1].split(","))
    if iota := re.search(r"replica_groups=\[\d+,(\d+)\]", attributes):
        return int(iota[1])
    if mesh := re.search(
        r"replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}", attributes
    ):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", mesh[1]))
        # Of an axis all, or a part of it as 'x':(2)4.
        axes = re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", mesh[2])
        return math.prod(int(part or sizes[axis]) for axis, part in axes)
    return 0


def bound(figures: Figures, chip: Chip, dtype: str) -> Bound:
    """Returns the roofline bound of a program on a chip.

    Args:
      figures: of the program.
      chip: its peaks.
      dtype: in which the program computes.
    """
    sent = sum(x.sent for x in figures.collectives.values())
    return Bound(
        figures.operations / chip.flops[dtype],
        figures.moved / chip.memory_bandwidth,
        sent / chip.link_bandwidth,
    )
