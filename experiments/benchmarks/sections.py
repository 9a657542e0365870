"""The sections of the benchmark: for each what is measured, as `rows` describes."""

from __future__ import annotations

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
from benchmarks.rows import COMPILE, EAGER, OURS, Row
from benchmarks.store import Store
from benchmarks.subjects import CONFIGS, EXAMPLES, Subject, make_subject, sizes
from coded_jax.runs.progress import progress_bars

TIMES = ("base", "code", "inference")
MEMORY = "memory"
ALL = (*TIMES, MEMORY)
SCRIPT = Path(__file__).parents[1] / "benchmark.py"
MEMORY_STEPS = 3
ATTEMPTS = 5
HINT = "pip install 'coded_jax[bench]'"


class Settings(NamedTuple):
    """The flags, checked.

    Attributes:
      sections, subjects: which of all.
      train_batches, inference_batches: batch sizes.
      seconds: to spend on each framework, about.
      rounds: of each measurement.
      torch_compile: whether torch.compile is timed beside PyTorch eager.
    """

    sections: tuple[str, ...] = ALL
    subjects: tuple[str, ...] = tuple(CONFIGS)
    train_batches: tuple[int, ...] = (64, 128, 256)
    inference_batches: tuple[int, ...] = (1, 64, 256)
    seconds: float = 1.0
    rounds: int = 7
    torch_compile: bool = True


class Measurement(NamedTuple):
    """What is measured at once: one section of one subject, at one batch size."""

    section: str
    subject: str
    batch: int

    @property
    def label(self) -> str:
        """Returns the name of its rows' subject: of a base model, that of itself."""
        model = CONFIGS[self.subject].base_model
        return model if self.section == "base" else self.subject

    def __str__(self) -> str:
        return f"{self.section}:{self.label}:{self.batch}"


class Bench(NamedTuple):
    """What all measurements share."""

    settings: Settings
    torch: ModuleType | None  # torch_jobs
    watch: Watch


def pytorch() -> ModuleType | None:
    """Returns the module with PyTorch's jobs; None without PyTorch."""
    try:
        return importlib.import_module("benchmarks.torch_jobs")
    except (ImportError, OSError) as error:
        print(f"PyTorch is not timed ({error}): {HINT}", file=sys.stderr)
        return None


def measurements(settings: Settings) -> list[Measurement]:
    """Returns all measurements; a base model that several subjects have, once."""
    found, models = [], set()
    for subject in settings.subjects:
        model = CONFIGS[subject].base_model
        for section in settings.sections:
            batches = settings.train_batches
            if section == "inference":
                batches = settings.inference_batches
            elif section == MEMORY:
                batches = batches[-1:]
            if section != "base" or model not in models:
                found += [Measurement(section, subject, batch) for batch in batches]
        models.add(model)
    return found


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
        row = {"subject": m.label, "job": job, "batch": m.batch}
        jobs = {name: prepared[job] for name, prepared in made.items()}
        rows += [{**row, **fields} for fields in compare(bench.settings, jobs)]
        if failure:
            rows.append({**row, "framework": COMPILE, "ms": None, "note": failure})
    return rows


def compare(settings: Settings, jobs: dict[str, Prepared]) -> list[Row]:
    """Times one job of several frameworks, and returns the fields of a row each."""
    calls = {name: prepared.job for name, prepared in jobs.items()}
    timings = profiling.measure(calls, settings.seconds, settings.rounds)
    rows = []
    for name, timing in timings.items():
        steps = jobs[name].steps
        rows.append(
            {
                "framework": name,
                "ms": timing.median / steps * 1e3,
                "quartiles_ms": [q / steps * 1e3 for q in timing.quartiles],
                "fastest_ms": timing.fastest / steps * 1e3,
                "rounds": timing.rounds,
                "calls": timing.calls * steps,
                "compile_s": jobs[name].compile_seconds,
            }
        )
    return rows


def memory(bench: Bench, m: Measurement) -> list[Row]:
    """Measures the peak memory of training, each job in a process of its own."""
    rows = []
    for job in ("base", "code"):
        own = Measurement(job, m.subject, m.batch)
        row = {"subject": own.label, "job": job, "batch": m.batch}
        if job == "base" and m.subject != _first_of_model(bench.settings, m.subject):
            continue
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


def _first_of_model(settings: Settings, subject: str) -> str:
    model = CONFIGS[subject].base_model
    return next(x for x in settings.subjects if CONFIGS[x].base_model == model)


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
    with progress_bars(Console(stderr=True)) as progress:
        bar = progress.add_task("benchmark", total=len(wanted), note="")
        for m in wanted:
            progress.update(bar, note=str(m))
            if str(m) not in store.rows:
                if m.section == MEMORY:
                    store.add(str(m), memory(bench, m))
                else:
                    store.add(str(m), undisturbed(bench, make(m.subject), m))
            progress.advance(bar)
    rows: dict[str, list[Row]] = {"times": [], "memory": []}
    for m in wanted:
        rows["memory" if m.section == MEMORY else "times"] += store.rows[str(m)]
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
