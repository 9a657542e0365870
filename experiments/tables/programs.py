"""Tables of programs that were compiled for described machines."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from coded_jax.devices.chips import CHIPS, Chip
from coded_jax.devices.compiled import bound
from coded_jax.devices.topologies import devices_of_host
from coded_jax.report import table
from coded_jax.report.program_table import LIMITS, collectives_text, short
from coded_jax.report.table import Column, Table
from coded_jax.studies.programs import Compiled
from tables import sections, stored
from tables.sections import Section

Content = dict[str, Any]


class Program(NamedTuple):
    """A compiled program of a stored result."""

    content: Content
    outcome: Compiled

    @property
    def chip(self) -> Chip:
        """Returns the chip that it was compiled for."""
        return CHIPS[self.content["target"].partition(":")[0]]

    @property
    def mesh(self) -> str:
        """Returns its mesh, as `2x4`."""
        return "x".join(map(str, self.outcome.mesh))

    @property
    def seconds(self) -> float:
        """Returns the seconds below which a call cannot end; NaN if it was refused."""
        if self.outcome.figures is None:
            return float("nan")
        return bound(self.outcome.figures, self.chip, self.outcome.dtype).seconds

    @property
    def bound_text(self) -> str:
        """Returns microseconds per image, at least, and what bounds them."""
        if self.outcome.figures is None:
            return "refused"
        least = bound(self.outcome.figures, self.chip, self.outcome.dtype)
        seconds = least.seconds / self.outcome.images
        return f"{short(1e6 * seconds)} ({LIMITS[least.name]})"


def programs_of(content: Content) -> list[Program]:
    """Returns the programs of a stored result."""
    outcomes = [Compiled.from_json(fields) for fields in content["programs"]]
    return [Program(content, outcome) for outcome in outcomes]


def subject_of(content: Content) -> str:
    """Returns network, code and precision of a stored result."""
    config = content["config"]
    return (
        f"{config['base_model']}, k={config['k']} r={config['r']}, "
        f"{config['encoder']} / {config['decoder']}, {config['precision']}"
    )


def figure(text: Callable[[Any, Program], str]) -> Callable[[Program], str]:
    """Returns the cell of a figure; empty for a program that was refused."""
    of = lambda program: text(program.outcome.figures, program)
    return lambda program: of(program) if program.outcome.figures else ""


def held_text(figures: Any, program: Program) -> str:
    """Returns the megabytes that a program needs, and their part of the chip's HBM."""
    part = 100 * figures.needed / program.chip.memory
    return f"{short(figures.needed / 1e6)} ({part:.2g} %)"


def refused_or_operations(program: Program) -> str:
    """Returns the operations per image in millions, or the compiler's refusal."""
    outcome = program.outcome
    if outcome.figures is None:
        return f"refused: {outcome.refusal}"
    return short(outcome.figures.operations / 1e6 / outcome.images)


PROGRAM = (
    Column("program", lambda x: x.outcome.name),
    Column("mesh", lambda x: x.mesh),
    Column("Mflop per image", refused_or_operations),
    Column(
        "kB of HBM per image",
        figure(lambda f, x: short(f.moved / 1e3 / x.outcome.images)),
    ),
    Column("MB held (of HBM)", figure(held_text)),
    Column(
        "collectives, kB sent",
        figure(lambda f, x: collectives_text(f).replace("\n", ", ")),
    ),
    Column("fusions", figure(lambda f, x: str(f.fusions))),
    Column("compiled in", figure(lambda f, x: f"{x.outcome.seconds:.1f} s")),
    Column("bound, µs per image", figure(lambda f, x: x.bound_text)),
)
MACHINE = (
    Column("machine", lambda x: x.content["target"]),
    Column("experiment", lambda x: subject_of(x.content)),
)


def compilers_text(content: Content) -> str:
    """Returns the versions of JAX and of the compilers."""
    versions = content["versions"]
    names = [x for x in versions if x == "libtpu" or x.startswith("jax-cuda")]
    return ", ".join(f"{name} {versions[name]}" for name in ["jax", *names])


def programs_section() -> Section:
    """Returns the file of all programs, those of the meshes that were compared too."""
    contents = [*stored.read("compiled").values()]
    contents += stored.read("compiled_meshes").values()
    found = [x for content in contents for x in programs_of(content)]
    origin = [
        *stored.ORIGIN[:3],
        Column("compilers", compilers_text),
        Column("command", lambda content: content["command"]),
    ]
    of_content = [Column(c.header, lambda x, c=c: c.text(x.content)) for c in origin]
    every = table.make([*MACHINE, *PROGRAM, *of_content], found)
    link = sections.linked("programs.csv", every, "program")
    return Section(link, {"programs.csv": every})


def largest(content: Content, kind: str) -> Program:
    """Returns the inference of the largest batch, `coded` or `uncoded`."""
    named = [
        program
        for program in programs_of(content)
        if program.outcome.name.startswith(f"{kind} inference")
    ]
    return max(named, key=lambda program: program.outcome.images)


def memory_text(content: Content) -> str:
    """Returns the most memory of a result's programs, and its part of the HBM."""
    made = [x for x in programs_of(content) if x.outcome.figures]
    most = max(x.outcome.figures.needed for x in made)  # type: ignore
    return f"{most / 1e6:,.0f} MB ({100 * most / made[0].chip.memory:.2g} %)"


def compiled_text(content: Content) -> str:
    """Returns the number of programs that compiled, of all."""
    found = programs_of(content)
    return f"{sum(x.outcome.figures is not None for x in found)} of {len(found)}"


SUMMARY = (
    Column("machine", lambda x: x["target"]),
    Column("experiment", subject_of),
    Column("programs compiled", compiled_text),
    Column("mesh", lambda x: largest(x, "coded").mesh),
    Column("largest batch", lambda x: str(largest(x, "coded").outcome.images)),
    Column("coded, µs per image at least", lambda x: largest(x, "coded").bound_text),
    Column("uncoded, the same machine", lambda x: largest(x, "uncoded").bound_text),
    Column("most memory (of HBM)", memory_text),
)


def summary_section() -> Section:
    """Returns a row for each stored result: what compiled, its largest inference."""
    made = table.make(SUMMARY, stored.read("compiled").values())
    every = Table(made.headers, sorted(made.rows))
    short_rows = [
        row for row in every.rows if row[0] in ("v5e:1x1", "v5e:2x4", "h100:8")
    ]
    link = sections.linked("machines.csv", every, "machine and experiment")
    shown = table.to_markdown(Table(every.headers, short_rows))
    return Section(f"{shown}\n\n{link}", {"machines.csv": every})


class Mended(NamedTuple):
    """A program before and after a change."""

    old: Compiled
    new: Program

    def change(self, of: Callable[[Any], Any], scale: float, images: int) -> str:
        """Returns a figure of both, over so many images, `4 → 3`."""

        def text(outcome: Compiled) -> str:
            value = None if outcome.figures is None else of(outcome.figures)
            return "-" if value is None else short(value / scale / images)

        return f"{text(self.old)} → {text(self.new.outcome)}"


def least_text(mended: Mended) -> str:
    """Returns kB per image: each argument read once, each output written once."""
    outcome = mended.new.outcome
    if outcome.figures is None:
        return "-"
    memory = outcome.figures.memory
    return short((memory["arguments"] + memory["outputs"]) / 1e3 / outcome.images)


def needed_text(mended: Mended) -> str:
    """Returns the operations per image and chip that a coded inference needs."""
    operations = mended.new.content["operations_needed"]
    return short(operations / math.prod(mended.new.outcome.mesh) / 1e6)


def changed(name: str, scale: float, by_image: bool = True) -> Callable[[Mended], str]:
    """Returns the cell of a figure before and after."""
    of = lambda figures: getattr(figures, name)
    images = lambda mended: mended.new.outcome.images if by_image else 1
    return lambda mended: mended.change(of, scale, images(mended))


MENDED = (
    Column("machine", lambda x: x.new.content["target"]),
    Column(
        "program",
        lambda x: f"{x.new.content['config']['base_model']}, {x.new.outcome.name}",
    ),
    Column("Mflop per image needed", needed_text),
    Column("Mflop per image", changed("operations", 1e6)),
    Column("kB of HBM per image at least", least_text),
    Column("kB of HBM per image", changed("moved", 1e3)),
    Column("MB held", changed("needed", 1e6, by_image=False)),
    Column("estimated cycles per image", changed("cycles", 1)),
)


def mended_section() -> Section:
    """Returns the file of programs before and after what they showed was mended."""
    key = lambda content: (content["target"], subject_of(content))
    before = {
        key(content): content for content in stored.read("history/compiled").values()
    }
    rows = []
    for content in stored.read("compiled").values():
        if (old := before.get(key(content))) is None:
            continue
        earlier = {x.outcome.name: x.outcome for x in programs_of(old)}
        rows += [
            Mended(earlier[program.outcome.name], program)
            for program in programs_of(content)
            if program.outcome.name in earlier
        ]
    every = table.make(MENDED, rows)
    link = sections.linked("mended.csv", every, "program")
    return Section(link, {"mended.csv": every})


def first_k_rows(content: Content) -> Iterable[list[str]]:
    """Yields a row for each batch: the bounds of one program on all chips, and of one
    on each chip, in microseconds; none where one host has not all devices, since the
    local engine has those of its own host."""
    k, n = content["config"]["k"], content["config"]["k"] + content["config"]["r"]
    programs = programs_of(content)
    by_name = {program.outcome.name: program for program in programs}
    stages = range(1, len(content["exchanged"]) + 1)
    for program in programs:
        outcome = program.outcome
        devices = math.prod(outcome.mesh)
        whole = devices == devices_of_host(content["target"], devices) > 1
        if not (outcome.name.startswith("coded inference") and whole):
            continue
        # Piece i is on device i mod devices; the front one, 0, encodes and decodes.
        most, of_front = -(-n // devices), len(range(0, n, devices))
        seconds = functools.partial(parts_seconds, by_name, outcome.images)
        queries = sum(query for query, _ in content["exchanged"]) * (n - of_front)
        shares = sum(share for _, share in content["exchanged"]) * max(k - of_front, 0)
        sent, returned = (
            outcome.images * size / program.chip.link_bandwidth
            for size in (queries, shares)
        )
        times = (
            seconds(["encoding"]),
            sent,
            most * seconds([f"a piece of stage {i}" for i in stages]),
            returned,
            seconds([f"decoding stage {i}" for i in stages]),
        )
        cells = [short(1e6 * x) for x in (program.seconds, *times, sum(times))]
        yield [content["target"], subject_of(content), str(outcome.images), *cells]


def parts_seconds(
    by_name: dict[str, Program], images: int, parts: Iterable[str]
) -> float:
    """Returns the sum of the bounds of programs of the local engine, in seconds."""
    names = (f"local engine, {part} of {images}" for part in parts)
    return sum(by_name[name].seconds for name in names)


FIRST_K = ("machine", "experiment", "images", "one program", "encode", "queries")
FIRST_K += ("piece", "shares", "decode", "a program per chip")


def first_k_section() -> Section:
    """Returns the bounds of one program on all chips, and of one on each chip."""
    rows = [row for x in stored.read("compiled").values() for row in first_k_rows(x)]
    every = Table(FIRST_K, rows)
    chosen = [row for row in rows if row[0] == "v5e:2x4" and row[2] != "1"]
    link = sections.linked("first_k.csv", every, "machine, experiment and batch")
    shown = table.to_markdown(Table(FIRST_K, chosen))
    return Section(f"{shown}\n\n{link}", {"first_k.csv": every})


SECTIONS: dict[str, Callable[[], Section]] = {
    "accelerators_summary": summary_section,
    "accelerators_mended": mended_section,
    "accelerators_first_k": first_k_section,
    "accelerators": programs_section,
}
