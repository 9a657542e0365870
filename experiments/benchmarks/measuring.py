"""What the benchmark measures: jobs of all frameworks, in turns, and rows of times."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import itertools
import json
import statistics
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from rich.console import Console

from benchmarks import jax_jobs, machine
from benchmarks.subjects import CONFIGS, EXAMPLES, Prepared, Subject, make_subject
from benchmarks.tables import BASE, COMPILE, EAGER, OURS, Row
from coded_jax import settings
from coded_jax.runs import workdir
from coded_jax.runs.progress import progress_bars
from coded_jax.settings import setting

SECTIONS = ("base", "code", "inference")
PAUSE = 0.02  # s; threads that one job leaves spinning sleep before the next begins
LIMIT = 0.1  # cores; daemons of an idle machine stay below a twentieth
NAMES = settings.tuple_of(settings.TEXT, ",", "names as a,b")
SIZES = settings.Accepted(
    lambda sizes: len(sizes) > 0 and {*sizes} <= {*range(1, EXAMPLES + 1)},
    f"integers in 1..{EXAMPLES}",
)


def some_of(choices: Iterable[str], about: str) -> Any:
    """Declares one or more of `choices`, all if not given."""
    holds = lambda names: len(names) > 0 and {*names} <= {*choices}
    accepted = settings.Accepted(holds, f"some of {[*choices]}")
    return setting(tuple(choices), about, accepted, NAMES)


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is measured.

    Raises:
      ValueError: a value is out of range.
    """

    sections: tuple[str, ...] = some_of(SECTIONS, "of measurements")
    subjects: tuple[str, ...] = some_of(CONFIGS, "networks with their codes")
    train_batches: tuple[int, ...] = setting(
        (64, 128, 256), "batch sizes", SIZES, settings.INTEGERS
    )
    inference_batches: tuple[int, ...] = setting(
        (1, 64, 256), "likewise", SIZES, settings.INTEGERS
    )
    seconds: float = setting(
        1.0, "for each framework and job, about", settings.more_than(0, 3600)
    )
    rounds: int = setting(7, "of each measurement, in turns", settings.integers(2))
    torch_compile: bool = setting(True, "time torch.compile as well as eager")

    def __post_init__(self) -> None:
        settings.check(self)


class Measurement(NamedTuple):
    """What is measured at once: one section of one subject, at one batch size."""

    section: str
    subject: str
    batch: int

    @property
    def label(self) -> str:
        """The name of its rows' subject: of a base model, that of itself."""
        model = CONFIGS[self.subject].base_model
        return model if self.section == BASE else self.subject

    def __str__(self) -> str:
        return f"{self.section}:{self.label}:{self.batch}"


def pytorch() -> ModuleType | None:
    """Returns the module with PyTorch's jobs; None without PyTorch."""
    try:
        return importlib.import_module("benchmarks.torch_jobs")
    except (ImportError, OSError) as error:
        hint = "pip install 'coded_jax[bench]'"
        print(f"PyTorch is not timed ({error}): {hint}", file=sys.stderr)
        return None


def measurements(wanted: Settings) -> list[Measurement]:
    """Returns all measurements; a base model that several subjects have, once."""
    found = {}
    for subject, section in itertools.product(wanted.subjects, wanted.sections):
        infers = section == "inference"
        for batch in wanted.inference_batches if infers else wanted.train_batches:
            own = Measurement(section, subject, batch)
            found.setdefault(str(own), own)
    return [*found.values()]


def times(
    wanted: Settings, torch: ModuleType | None, subject: Subject, m: Measurement
) -> list[Row]:
    """Times the jobs of a measurement in all frameworks, in turns."""
    make = lambda module, **how: getattr(module, m.section)(subject, m.batch, **how)
    made: dict[str, dict[str, Prepared]] = {OURS: make(jax_jobs)}
    failure = None
    if torch is not None:
        made[EAGER] = make(torch)
        if wanted.torch_compile:
            try:
                made[COMPILE] = make(torch, compile=True)
            except RuntimeError as error:
                failure = str(error)
    rows = []
    for job in made[OURS]:
        own = {"subject": m.label, "job": job, "batch": m.batch}
        jobs = {name: prepared[job] for name, prepared in made.items()}
        # Not before: torch.compile has processes of its own.
        begun, before = time.perf_counter(), machine.others_seconds()
        timed = time_jobs(jobs, wanted.seconds, wanted.rounds)
        used = machine.others_seconds() - before
        own["others"] = max(0.0, used / (time.perf_counter() - begun))
        rows += [{**own, "framework": name, **row} for name, row in timed.items()]
        if failure:
            rows.append({**own, "framework": COMPILE, "ms": None, "note": failure})
    return rows


def time_jobs(
    jobs: dict[str, Prepared], seconds: float, rounds: int = 7
) -> dict[str, Row]:
    """Times jobs in turns, so that a disturbance of the machine meets all of them.

    Args:
      jobs: what is compared.
      seconds: to spend on each, about; a round has one call at least.
      rounds: how often each is timed, 2 or more. Only 3 times if calls turn out so
        slow that all rounds together take more than thrice the time planned.

    Returns:
      The times of each job, see `tables`.
    """

    def seconds_of(name: str, calls: int) -> float:
        start = time.perf_counter()
        jobs[name].job(calls)
        return time.perf_counter() - start

    calls, of_calls = {}, {name: [] for name in jobs}
    for name in jobs:
        jobs[name].job(1)
        once = seconds_of(name, 1)
        if once < seconds / rounds:  # then a disturbed call would mislead
            once = min(once, seconds_of(name, 1), seconds_of(name, 1))
        calls[name] = max(1, int(seconds / rounds / max(once, 1e-7)))
    deadline = time.perf_counter() + 3 * seconds * len(jobs)
    for i in range(rounds):
        if i >= 3 and time.perf_counter() > deadline:
            break
        for name in list(jobs) if i % 2 else reversed(jobs):
            time.sleep(PAUSE)
            if calls[name] > 1:
                jobs[name].job(1)  # wakes its threads
            of_calls[name].append(seconds_of(name, calls[name]) / calls[name])
    rows = {}
    for name, job in jobs.items():
        milliseconds = [1e3 * value / job.steps for value in of_calls[name]]
        first, median, third = statistics.quantiles(milliseconds, method="inclusive")
        rows[name] = {
            "ms": median,
            "quartiles_ms": [first, third],
            "fastest_ms": min(milliseconds),
            "rounds": len(milliseconds),
            "calls": calls[name] * job.steps,
            "compile_s": job.compile_seconds,
        }
    return rows


def most_others(rows: Sequence[Row]) -> float:
    """Returns the cores that other processes used while rows were measured."""
    return max(row.get("others", 0.0) for row in rows)


def run(
    wanted: Settings, torch: ModuleType | None, path: Path, origin: dict[str, Any]
) -> list[Row]:
    """Measures all that is wanted, and keeps what others have not disturbed in a file.

    Args:
      wanted: what is measured.
      torch: see `pytorch`.
      path: of the file. What a former start has kept there is not measured again where
        its origin is the same, unless no commit has the code.
      origin: machine, versions, commit and command.
    """
    kept: dict[str, list[Row]] = {}
    if path.exists() and (origin["commit"] or "+").isalnum():
        former = json.loads(path.read_text())
        kept = former["rows"] if former["origin"] == origin else {}
    make = functools.lru_cache(maxsize=1)(make_subject)
    rows: list[Row] = []
    with progress_bars(Console(stderr=True)) as progress:
        bar = progress.add_task("benchmark", total=len(measurements(wanted)), note="")
        for m in measurements(wanted):
            progress.update(bar, note=str(m))
            found = kept.get(str(m)) or times(wanted, torch, make(m.subject), m)
            rows += found
            if most_others(found) <= LIMIT:
                kept[str(m)] = found
                text = json.dumps({"origin": origin, "rows": kept})
                workdir.write_atomically(path, text)
            progress.advance(bar)
    return rows
