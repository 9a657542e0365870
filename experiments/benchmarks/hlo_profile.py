"""Where the time of one of our jobs goes, by operations, from the profiler of XLA."""

from __future__ import annotations

import collections
import re
import tempfile
from pathlib import Path
from typing import Any

import jax
from rich.console import Group

from benchmarks import jax_jobs
from benchmarks.measuring import SECTIONS
from benchmarks.subjects import CONFIGS, EXAMPLES, make_subject
from coded_jax.checks import require
from coded_jax.report.table import Table, to_terminal

CALLS = 10
MOST = 15  # lines of a table
OUTER = r"(call|conditional|while)[.\d]*"  # their time is that of what they call


def profile(text: str) -> Group:
    """Runs one of our jobs under the profiler, and returns tables of its time.

    Args:
      text: `section:subject:batch`; the section is `base`, `code` or `inference`.

    Raises:
      ValueError: there is no such job, or this version of JAX cannot read profiles.
    """
    section, subject, batch = [*text.split(":"), "", ""][:3]
    fits = section in SECTIONS and subject in CONFIGS and text.count(":") == 2
    fits = fits and batch.isdecimal() and 1 <= int(batch) <= EXAMPLES
    accepted = (
        f"section:subject:batch, of {list(SECTIONS)}, {list(CONFIGS)} and 1..{EXAMPLES}"
    )
    require("profile", text, fits, accepted)
    data = getattr(jax.profiler, "ProfileData", None)
    accepted = "a version of JAX with jax.profiler.ProfileData, as 0.10.2,"
    require("profile", f"jax {jax.__version__}", data is not None, accepted)
    jobs = getattr(jax_jobs, section)(make_subject(subject), int(batch))
    parts: list[Any] = []
    for name, prepared in jobs.items():
        prepared.job(2)
        with tempfile.TemporaryDirectory() as folder:
            with jax.profiler.trace(folder):
                prepared.job(CALLS)
            (path,) = Path(folder).rglob("*.xplane.pb")
            seconds = seconds_of(data.from_file(str(path)))
        pattern = r'%?([\w.\-]+) = .*op_name="[^"/]*/([^"]+)"'
        sources = dict(re.findall(pattern, prepared.program.as_text()))
        spent = collections.Counter()
        for instruction, own in seconds.items():  # what XLA has made has no source
            spent[sources.get(instruction, re.sub(r"[.\d]+$", "", instruction))] += own
        total, steps = spent.total(), CALLS * prepared.steps
        rows = [
            [what, f"{1e3 * own / steps:.3f}", f"{100 * own / total:.1f} %"]
            for what, own in spent.most_common(MOST)
        ]
        made = Table(["operation", "ms per step", "share"], rows)
        parts.append(to_terminal(made, f"{text}, {name}"))
    return Group(*parts)


def seconds_of(data: Any) -> dict[str, float]:
    """Returns the seconds of each instruction in a profile, also where they overlap.

    Of an instruction that other threads compute for, the event of its start is short,
    and one of its end, which has its number, comes later.

    Args:
      data: `jax.profiler.ProfileData`.
    """
    events = [e for plane in data.planes for line in plane.lines for e in line.events]
    begun, ended = [], {}
    for event in events:
        facts = dict(event.stats)
        end = event.start_ns + event.duration_ns
        if "hlo_op" in facts and not re.fullmatch(OUTER, str(facts["hlo_op"])):
            begun.append((str(facts["hlo_op"]), event.start_ns, end, facts.get("_p")))
        elif event.name.startswith("end: ") and "_c" in facts:
            ended[facts["_c"]] = end
    seconds = collections.Counter()
    for name, start, end, number in begun:
        seconds[name] += (max(end, ended.get(number, end)) - start) / 1e9
    return seconds
