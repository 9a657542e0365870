"""Where the time of one of our jobs goes, by operations of XLA, from its profiler."""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax
from rich import box
from rich.console import Group
from rich.table import Table

from benchmarks import jax_jobs
from benchmarks.sections import TIMES
from benchmarks.subjects import CONFIGS, EXAMPLES, make_subject
from coded_jax.checks import require

CALLS = 10
MOST = 15  # lines of a table
OUTER = ("call", "conditional", "while")  # their time is that of what they call
WORK = ("convolution", "dot", "reduce-window", "select-and-scatter", "scatter", "sort")
INSTRUCTION = r"\s*(?:ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)$"
NOTHING = "nothing of the program runs"


class Operation(NamedTuple):
    """One instruction of a compiled program.

    Attributes:
      opcode: as `fusion`, and of a custom call its target.
      shape: of the result.
      kind: the primitive of JAX, and whether it belongs to a gradient; of instructions
        that XLA has made, as it does of gradients by weights, which have no name in
        JAX, what they compute, or what they copy for.
      source: the path of functions and modules of JAX to the primitive, or `kind`.
    """

    opcode: str
    shape: str
    kind: str
    source: str


class Event(NamedTuple):
    """One execution of an instruction; seconds."""

    name: str
    start: float
    end: float


def profile(text: str) -> Group:
    """Runs one of our jobs under the profiler, and returns tables of its time.

    Args:
      text: `section:subject:batch`; the section is `base`, `code` or `inference`.

    Raises:
      ValueError: there is no such job, or this version of JAX cannot read profiles.
    """
    section, subject, batch = _parse(text)
    data = getattr(jax.profiler, "ProfileData", None)
    accepted = "a version of JAX with jax.profiler.ProfileData, as 0.10.2,"
    require("profile", f"jax {jax.__version__}", data is not None, accepted)
    parts: list[Any] = []
    for name, prepared in getattr(jax_jobs, section)(
        make_subject(subject), batch
    ).items():
        prepared.job(2)
        start = time.perf_counter()
        prepared.job(CALLS)
        unwatched = (time.perf_counter() - start) / CALLS / prepared.steps
        with tempfile.TemporaryDirectory() as folder:
            with jax.profiler.trace(folder):
                prepared.job(CALLS)
            (path,) = Path(folder).rglob("*.xplane.pb")
            events = read_events(data.from_file(str(path)))
        operations = read_operations(prepared.program.as_text())
        steps = CALLS * prepared.steps
        title = f"{text}, {name}: {unwatched * 1e3:.2f} ms without the profiler"
        parts += [title, *_tables(events, operations, steps)]
    return Group(*parts)


def _parse(text: str) -> tuple[str, str, int]:
    parts = text.split(":")
    fits = len(parts) == 3 and parts[0] in TIMES and parts[1] in CONFIGS
    fits = fits and parts[2].isdecimal() and 1 <= int(parts[2]) <= EXAMPLES
    accepted = (
        f"section:subject:batch, of {list(TIMES)}, {list(CONFIGS)} and 1..{EXAMPLES}"
    )
    require("profile", text, fits, accepted)
    return parts[0], parts[1], int(parts[2])


def read_operations(text: str) -> dict[str, Operation]:
    """Returns the instructions of a compiled program's text by their names."""
    found: dict[str, tuple[str, str, str]] = {}  # opcode, shape, the rest of the line
    inside: dict[str, list[str]] = {}  # opcodes of each computation
    users: dict[str, str] = {}  # the first one of each instruction
    computation = ""
    for line in text.splitlines():
        if header := re.match(r"(?:ENTRY )?%?([\w.\-]+) .*\{$", line):
            computation = header[1]
        if not (parts := re.match(INSTRUCTION, line)):
            continue
        name, shape, opcode, rest = parts.groups()
        target = re.search(r'custom_call_target="([^"]*)"', rest)
        found[name] = (target[1] if target else opcode, shape, rest)
        inside.setdefault(computation, []).append(opcode)
        for operand in re.findall(r"%([\w.\-]+)", rest.partition("), ")[0]):
            users.setdefault(operand, name)

    def kind_of(name: str, depth: int = 0) -> str:
        opcode, _, rest = found[name]
        if source := _source(rest):
            way = "gradient" if "transpose(jvp(" in source else "forward"
            return f"{source.rpartition('/')[2]}, {way}"
        called = re.search(r"calls=%([\w.\-]+)", rest)
        for work in [opcode, *inside.get(called[1] if called else "", ())]:
            if work in WORK:
                return f"{work} without a name"
        own = re.sub(r"[.\d]+$", "", name)
        user = users.get(name)
        if user in found and depth < 2:
            return f"{own} for {kind_of(user, depth + 1)}"
        return own

    operations = {}
    for name, (opcode, shape, rest) in found.items():
        kind = kind_of(name)
        shape = re.sub(r"\{[^}]*\}", "", shape)
        operations[name] = Operation(opcode, shape, kind, _source(rest) or kind)
    return operations


def _source(rest: str) -> str:
    """Returns the `op_name` of an instruction without the outermost function."""
    named = re.search(r'op_name="([^"]*)"', rest)
    return named[1].partition("/")[2] if named else ""


def read_events(data: Any) -> list[Event]:
    """Returns the executions of instructions in a profile.

    Of an instruction that others compute for, the event of its start is short, and one
    of its end, which has its number, comes later.

    Args:
      data: `jax.profiler.ProfileData`.
    """
    begun, ended = [], {}
    for plane in data.planes:
        for line in plane.lines:
            for event in line.events:
                facts = dict(event.stats)
                end = (event.start_ns + event.duration_ns) / 1e9
                if "hlo_op" in facts:
                    start = event.start_ns / 1e9
                    own = Event(str(facts["hlo_op"]), start, end)
                    begun.append((facts.get("_p"), own))
                elif event.name.startswith("end: ") and "_c" in facts:
                    ended[facts["_c"]] = end
    return [
        event._replace(end=max(event.end, ended.get(number, event.end)))
        for number, event in begun
    ]


def divide(events: Iterable[Event]) -> dict[str, float]:
    """Divides the time from the first start to the last end among instructions.

    At each moment it goes to all that run then in equal parts, or to `NOTHING`, so that
    the parts add up to the whole.

    Returns:
      `{name: seconds}`.
    """
    changes = sorted(
        change
        for event in events
        if event.end > event.start
        for change in ((event.start, 1, event.name), (event.end, 0, event.name))
    )
    seconds: dict[str, float] = {}
    running: list[str] = []
    for (now, begins, name), (later, *_) in zip(
        changes, [*changes[1:], *changes[-1:]], strict=True
    ):
        if begins:
            running.append(name)
        elif name in running:
            running.remove(name)
        for other in running or [NOTHING]:
            share = (later - now) / max(1, len(running))
            seconds[other] = seconds.get(other, 0.0) + share
    return seconds


def _tables(
    events: list[Event], operations: dict[str, Operation], steps: int
) -> list[Table]:
    """Returns the tables of kinds and of single instructions."""
    of = lambda name: operations.get(name, Operation("", "", name, name))
    seconds = divide(event for event in events if of(event.name).opcode not in OUTER)
    total = sum(seconds.values())
    kinds: dict[str, tuple[float, int]] = {}
    for name, spent in seconds.items():
        before, count = kinds.get(of(name).kind, (0.0, 0))
        kinds[of(name).kind] = (before + spent, count + 1)
    by_kind = _table("of each kind", "instructions")
    for kind, (spent, count) in sorted(kinds.items(), key=lambda x: -x[1][0])[:MOST]:
        by_kind.add_row(kind, *_figures(spent, total, steps), str(count))
    single = _table("of each instruction", "result")
    for name, spent in sorted(seconds.items(), key=lambda x: -x[1])[:MOST]:
        figures = _figures(spent, total, steps)
        single.add_row(of(name).source, *figures, of(name).shape)
    by_kind.caption = f"{total / steps * 1e3:.2f} ms per step under the profiler"
    return [by_kind, single]


def _table(first: str, last: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, caption_justify="left")
    for column in (first, "ms per step", "share", last):
        text = column == first
        table.add_column(
            column,
            justify="left" if text else "right",
            overflow="fold",
            no_wrap=not text,
        )
    return table


def _figures(seconds: float, total: float, steps: int) -> tuple[str, str]:
    return f"{seconds / steps * 1e3:.3f}", f"{100 * seconds / total:.1f} %"
