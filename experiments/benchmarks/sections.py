"""The sections of the benchmark: for each what is measured, as `rows` describes."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from rich.console import Console

from benchmarks import jax_jobs, profiling
from benchmarks.machine import WAY_OUT, Busy, Watch
from benchmarks.profiling import Prepared
from benchmarks.rows import BASE, CODE, COMPILE, EAGER, OURS, Row
from benchmarks.subjects import CONFIGS, EXAMPLES, Subject, make_subject, sizes
from coded_jax.runs.progress import progress_bars
from coded_jax.settings import (
    INTEGERS,
    TEXT,
    Accepted,
    check,
    integers,
    more_than,
    setting,
    tuple_of,
)

TIMES = ("base", "code", "inference")
MEMORY = "memory"
ALL = (*TIMES, MEMORY)
SCRIPT = Path(__file__).parents[1] / "benchmark.py"
MEMORY_STEPS = 3
ATTEMPTS = 5


NAMES = tuple_of(TEXT, ",", "names as a,b")
SIZES = Accepted(
    lambda sizes: len(sizes) > 0 and {*sizes} <= {*range(1, EXAMPLES + 1)},
    f"integers in 1..{EXAMPLES}",
)


def some_of(choices: tuple[str, ...]) -> Accepted:
    """Accepts one or more of `choices`."""
    holds = lambda names: len(names) > 0 and {*names} <= {*choices}
    return Accepted(holds, f"some of {list(choices)}")


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is measured.

    Raises:
      ValueError: a value is out of range.
    """

    sections: tuple[str, ...] = setting(ALL, "of measurements", some_of(ALL), NAMES)
    subjects: tuple[str, ...] = setting(
        tuple(CONFIGS), "networks with their codes", some_of(tuple(CONFIGS)), NAMES
    )
    train_batches: tuple[int, ...] = setting(
        (64, 128, 256), "batch sizes; memory is that of the last", SIZES, INTEGERS
    )
    inference_batches: tuple[int, ...] = setting(
        (1, 64, 256), "likewise", SIZES, INTEGERS
    )
    seconds: float = setting(
        1.0, "for each framework and job, about", more_than(0, 3600)
    )
    rounds: int = setting(7, "of each measurement, in turns", integers(2))
    torch_compile: bool = setting(True, "time torch.compile as well as eager")

    def __post_init__(self) -> None:
        check(self)


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


class Bench(NamedTuple):
    """What all measurements share; `torch` is `torch_jobs`, or None without PyTorch."""

    settings: Settings
    torch: ModuleType | None
    watch: Watch


class Store:
    """Rows by measurement, kept beside the file that they will stand in.

    Args:
      output: the file to be written in the end.
      origin: machine, versions, commit and command; rows of another one are dropped,
        and so are those of code that no commit has.

    Attributes:
      rows: `{measurement: its rows}`, those of a former start among them.
    """

    def __init__(self, output: Path, origin: dict[str, Any]) -> None:
        self.path = output.with_suffix(".partial")
        self.rows: dict[str, list[Row]] = {}
        first_line = json.dumps(origin)
        committed = origin["commit"] is not None and origin["commit"].isalnum()
        lines = self.path.read_text().splitlines() if self.path.exists() else [""]
        if committed and lines[0] == first_line:
            self.rows = dict(map(json.loads, lines[1:]))
        else:
            output.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text(f"{first_line}\n")

    def add(self, measurement: str, rows: list[Row]) -> None:
        """Keeps the rows of a measurement."""
        self.rows[measurement] = rows
        with self.path.open("a") as file:
            file.write(json.dumps([measurement, rows]) + "\n")


def pytorch() -> ModuleType | None:
    """Returns the module with PyTorch's jobs; None without PyTorch."""
    try:
        return importlib.import_module("benchmarks.torch_jobs")
    except (ImportError, OSError) as error:
        hint = "pip install 'coded_jax[bench]'"
        print(f"PyTorch is not timed ({error}): {hint}", file=sys.stderr)
        return None


def measurements(settings: Settings) -> list[Measurement]:
    """Returns all measurements; a base model that several subjects have, once."""
    batches = dict.fromkeys(TIMES, settings.train_batches)
    batches["inference"] = settings.inference_batches
    batches[MEMORY] = settings.train_batches[-1:]
    found = {}
    for subject in settings.subjects:
        for section in settings.sections:
            for batch in batches[section]:
                own = Measurement(section, subject, batch)
                found.setdefault(str(own), own)
    return [*found.values()]


def times(bench: Bench, subject: Subject, m: Measurement) -> list[Row]:
    """Times the jobs of a measurement in all frameworks, in turns."""
    make = lambda module, **how: getattr(module, m.section)(subject, m.batch, **how)
    made: dict[str, dict[str, Prepared]] = {OURS: make(jax_jobs)}
    failure = None
    if bench.torch is not None:
        made[EAGER] = make(bench.torch)
        if bench.settings.torch_compile:
            try:
                made[COMPILE] = make(bench.torch, compile=True)
            except RuntimeError as error:
                failure = str(error)
    rows = []
    for job in made[OURS]:
        own = {"subject": m.label, "job": job, "batch": m.batch}
        calls = {name: prepared[job].job for name, prepared in made.items()}
        settings = bench.settings
        timings = profiling.time_jobs(calls, settings.seconds, settings.rounds)
        for name, timing in timings.items():
            prepared = made[name][job]
            of_step = 1e3 / prepared.steps
            row = {
                "framework": name,
                "ms": timing.median * of_step,
                "quartiles_ms": [quartile * of_step for quartile in timing.quartiles],
                "fastest_ms": timing.fastest * of_step,
                "rounds": timing.rounds,
                "calls": timing.calls * prepared.steps,
                "compile_s": prepared.compile_seconds,
            }
            rows.append({**own, **row})
        if failure:
            rows.append({**own, "framework": COMPILE, "ms": None, "note": failure})
    return rows


def memory(bench: Bench, m: Measurement) -> list[Row]:
    """Measures the peak memory of training, each job in a process of its own."""
    rows = []
    same = lambda x: CONFIGS[x].base_model == CONFIGS[m.subject].base_model
    first = next(filter(same, bench.settings.subjects))
    for job in (BASE, CODE) if m.subject == first else (CODE,):
        label = Measurement(job, m.subject, m.batch).label
        row = {"subject": label, "job": job, "batch": m.batch}
        request = {"subject": m.subject, "job": job, "batch": m.batch}
        peak = output_of([str(SCRIPT), f"--worker={json.dumps(request)}"])
        request |= {"sizes": peak.pop("sizes"), "examples": EXAMPLES}
        rows.append({**row, "framework": OURS, **peak})
        if bench.torch is not None:
            script = Path(__file__).with_name("torch_baseline.py")
            request["calls"] = MEMORY_STEPS
            peak = output_of([str(script), json.dumps(request)])
            rows.append({**row, "framework": EAGER, **peak})
    return rows


def peak_memory(subject: str, job: str, batch: int) -> Row:
    """Measures the peak memory of training in this process."""
    s = make_subject(subject)
    before = profiling.peak_bytes()
    (prepared,) = getattr(jax_jobs, job)(s, batch).values()
    prepared.job(MEMORY_STEPS)
    peak = profiling.peak_bytes()
    return {"before_bytes": before, "peak_bytes": peak, "sizes": sizes(s)}


def output_of(command: list[str]) -> Any:
    """Runs a Python program, and returns the JSON of its last line."""
    quiet = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"}
    done = subprocess.run(
        [sys.executable, *command], stdout=subprocess.PIPE, text=True, env=quiet
    )
    if done.returncode:
        raise RuntimeError(f"{shlex.join(command[:1])}: failed, see above")
    return json.loads(done.stdout.splitlines()[-1])


def run(bench: Bench, store: Store) -> dict[str, list[Row]]:
    """Measures what is asked for and not stored yet.

    Returns:
      The rows of `times` and of `memory`.

    Raises:
      machine.Busy: others compute; the store has what was measured before.
    """
    make = functools.lru_cache(maxsize=1)(make_subject)
    wanted = measurements(bench.settings)
    rows: dict[str, list[Row]] = {"times": [], "memory": []}
    with progress_bars(Console(stderr=True)) as progress:
        bar = progress.add_task("benchmark", total=len(wanted), note="")
        for m in wanted:
            progress.update(bar, note=str(m))
            if str(m) not in store.rows:
                if m.section == MEMORY:
                    store.add(str(m), memory(bench, m))
                else:
                    store.add(str(m), undisturbed(bench, make(m.subject), m))
            rows["memory" if m.section == MEMORY else "times"] += store.rows[str(m)]
            progress.advance(bar)
    return rows


def undisturbed(bench: Bench, subject: Subject, m: Measurement) -> list[Row]:
    """Times a measurement on an idle machine: again, where others came meanwhile.

    Raises:
      machine.Busy: the machine is not idle.
    """
    for _ in range(ATTEMPTS):
        bench.watch.wait()
        rows = times(bench, subject, m)
        if bench.watch.quiet():
            return rows
    raise Busy(f"machine: others computed during {ATTEMPTS} trials of {m}; {WAY_OUT}")
