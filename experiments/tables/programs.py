"""Tables of programs that were compiled for described machines."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

from coded_jax.aot.chips import CHIPS, Chip
from coded_jax.aot.compiled import Bound, bound
from coded_jax.aot.program_table import LIMITS, collectives_text
from coded_jax.aot.programs import Compiled
from coded_jax.aot.topologies import HOSTS
from coded_jax.report import table
from coded_jax.report.formatting import number_text, size_text
from coded_jax.report.table import Columns
from tables import stored
from tables.stored import Content, Section, section
from tables.targets import NONE

SHOWN = ("v5e:1x1", "v5e:2x4", "h100:8")  # machines of the page's first table


class Program(NamedTuple):
    """A program of a stored result.

    Attributes:
      content: the stored result.
      outcome: of compiling the program.
    """

    content: Content
    outcome: Compiled

    @property
    def chip(self) -> Chip:
        """The chip that it was compiled for."""
        return CHIPS[self.content["target"].partition(":")[0]]

    @property
    def least(self) -> Bound:
        """The time below which a call cannot end."""
        return bound(self.outcome.figures, self.chip, self.outcome.dtype)


def programs_of(*contents: Content) -> list[Program]:
    """Returns the programs of stored results."""
    return [
        Program(content, Compiled.from_json(x))
        for content in contents
        for x in content["programs"]
    ]


def largest(content: Content, kind: str = "coded") -> Program:
    """Returns the inference of the largest batch, `coded` or `uncoded`."""
    of_kind = lambda x: x.outcome.name.startswith(f"{kind} inference")
    return max(filter(of_kind, programs_of(content)), key=lambda x: x.outcome.images)


SUBJECT = "{base_model}, k={k} r={r}, {encoder} / {decoder}, {precision}"
subject_of = lambda program: SUBJECT.format(**program.content["config"])


def per_image(program: Program, figure: str, unit: float) -> str:
    """Returns a figure per image, `-` where the compiler has none."""
    value, images = getattr(program.outcome.figures, figure), program.outcome.images
    return NONE if value is None else number_text(value / unit / images)


def least_time(program: Program) -> str:
    """Returns the microseconds per image, at least."""
    return number_text(1e6 * program.least.seconds / program.outcome.images)


limit = lambda program: LIMITS[program.least.name]
MACHINE: Columns = {"machine": lambda x: x.content["target"], "experiment": subject_of}
ORIGINS = stored.origins(lambda x: x.content)
ORIGIN: Columns = {
    **{name: ORIGINS[name] for name in ("version", "commit", "date")},
    "compilers": lambda x: ", ".join(
        f"{name} {version}"
        for name, version in x.content["versions"].items()
        if name in ("jax", "libtpu") or name.startswith("jax-cuda")
    ),
    "command": ORIGINS["command"],
}
"""Columns of the CSV files that say where a program is from."""

FIGURES: Columns = {
    "Mflop per image": lambda x: per_image(x, "operations", 1e6),
    "kB of HBM per image": lambda x: per_image(x, "moved", 1e3),
    "MB held": lambda x: number_text(x.outcome.figures.needed / 1e6),
    "of HBM, %": lambda x: f"{100 * x.outcome.figures.needed / x.chip.memory:.2g}",
    "collectives, kB sent": lambda x: collectives_text(x.outcome.figures).replace(
        "\n", ", "
    ),
    "fusions": lambda x: str(x.outcome.figures.fusions),
    "compiled in, s": lambda x: f"{x.outcome.seconds:.1f}",
    "bound, µs per image": least_time,
    "bound by": limit,
}
"""Columns of a program that compiled."""

PROGRAM: Columns = {
    **MACHINE,
    "program": lambda x: x.outcome.name,
    "mesh": lambda x: size_text(x.outcome.mesh),
    **{
        name: lambda x, text=text: text(x) if x.outcome.figures else ""
        for name, text in FIGURES.items()
    },
    "refused": lambda x: x.outcome.refusal or "",
}


def long(columns: Columns, programs: Iterable[Program], what: str) -> tuple:
    """Returns the table of a CSV file, with columns of origin, and what a row is."""
    return (table.make({**columns, **ORIGIN}, programs), what)


def most_needed(program: Program) -> int:
    """Returns the most bytes that a program of the same result needs."""
    all_figures = (x.outcome.figures for x in programs_of(program.content))
    return max(figures.needed for figures in all_figures if figures)


SUMMARY: Columns = {
    **MACHINE,
    "programs": lambda x: str(len(x.content["programs"])),
    "compiled": lambda x: str(
        sum(program["figures"] is not None for program in x.content["programs"])
    ),
    "mesh": lambda x: size_text(x.outcome.mesh),
    "largest batch": lambda x: str(x.outcome.images),
    "coded, µs per image at least": least_time,
    "coded, bound by": limit,
    "uncoded, the same machine": lambda x: least_time(largest(x.content, "uncoded")),
    "uncoded, bound by": lambda x: limit(largest(x.content, "uncoded")),
    "most memory, MB": lambda x: f"{most_needed(x) / 1e6:.0f}",
    "of HBM, %": lambda x: f"{100 * most_needed(x) / x.chip.memory:.2g}",
}
"""Columns of the coded inference of the largest batch."""


def summary_section() -> Section:
    """Returns a row for each stored result: what compiled, its largest inference."""
    programs = [largest(x) for x in stored.read("compiled").values()]
    programs.sort(key=lambda x: (x.content["target"], subject_of(x)))
    shown = [x for x in programs if x.content["target"] in SHOWN]
    every = long(SUMMARY, programs, "machine and experiment")
    return section(table.make(SUMMARY, shown), files={"machines.csv": every})


PARTS = ("encode", "queries", "piece", "shares", "decode")


def parts_of(program: Program) -> dict[str, float]:
    """Returns the bounds of `PARTS` in seconds, on the slowest path of a batch, where
    each chip of the program's mesh has a program of its own."""
    config, exchanged = program.content["config"], program.content["exchanged"]
    k, n, images = config["k"], config["k"] + config["r"], program.outcome.images
    # Piece i is on device i mod devices. The front one, 0, encodes and decodes, and no
    # device has more pieces.
    most = math.ceil(n / math.prod(program.outcome.mesh))
    named = {x.outcome.name: x.least.seconds for x in programs_of(program.content)}
    local = lambda part: named[f"local engine, {part} of {images}"]
    of_stages = lambda part: sum(
        local(f"{part} stage {i + 1}") for i in range(len(exchanged))
    )
    queries, shares = map(sum, zip(*exchanged, strict=True))  # bytes of an image
    link = lambda size: images * size / program.chip.link_bandwidth
    return {
        "encode": local("encoding"),
        "queries": link(queries) * (n - most),
        "piece": most * of_stages("a piece of"),
        "shares": link(shares) * max(k - most, 0),
        "decode": of_stages("decoding"),
    }


microseconds = lambda seconds: number_text(1e6 * seconds)
FIRST_K: Columns = {
    **MACHINE,
    "images": lambda x: str(x.outcome.images),
    "one program": lambda x: microseconds(x.least.seconds),
    **{x: lambda row, x=x: microseconds(parts_of(row)[x]) for x in PARTS},
    "a program per chip": lambda x: microseconds(sum(parts_of(x).values())),
}
"""Columns of microseconds."""


def on_one_host(program: Program) -> bool:
    """Returns whether a program is a coded inference on several devices of one host: of
    more hosts the local engine has only the devices of its own."""
    name, _, size = program.content["target"].partition(":")
    devices = math.prod(program.outcome.mesh)
    # Others have hosts of 2x2 chips, and a TPU7x two devices on a chip.
    most = 8 if name == "tpu7x" else 4
    whole = name == "h100" or size in HOSTS or devices <= most
    return whole and devices > 1 and program.outcome.name.startswith("coded inference")


def first_k_section() -> Section:
    """Returns the bounds of one program on all chips, and of one on each chip."""
    compiled = programs_of(*stored.read("compiled").values())
    programs = [*filter(on_one_host, compiled)]
    on_v5e = [x for x in programs if x.content["target"] == "v5e:2x4"]
    shown = [x for x in on_v5e if x.outcome.images > 1]
    every = long(FIRST_K, programs, "machine, experiment and batch")
    return section(table.make(FIRST_K, shown), files={"first_k.csv": every})


def programs_section() -> Section:
    """Returns the file of all programs, those of the meshes that were compared too."""
    contents = stored.read("compiled") | stored.read("compiled_meshes")
    programs = programs_of(*contents.values())
    return section(files={"programs.csv": long(PROGRAM, programs, "program")})


SECTIONS = {
    "accelerators_summary": summary_section,
    "accelerators_first_k": first_k_section,
    "accelerators": programs_section,
}
