"""The sections of the benchmark: for each what is timed, as `rows` describes."""

from __future__ import annotations

import importlib
import itertools
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import jax
from rich.console import Console

from benchmarks import jax_jobs, profiling
from benchmarks.jax_jobs import Subject, make_subject
from benchmarks.profiling import Prepared
from benchmarks.rows import COMPILE, EAGER, OURS, Row
from coded_jax.devices import startup
from coded_jax.runs.progress import progress_bars
from coded_jax.types import Dataset

DEVICES = (1, 2, 4, 8)
BATCH = 64  # of shares and operations
SCRIPT = Path(__file__).parents[1] / "benchmark.py"


class Settings(NamedTuple):
    """The flags, checked."""

    sections: tuple[str, ...]
    codes: tuple[tuple[int, int], ...]
    networks: tuple[str, ...]
    batches: tuple[int, ...]
    seconds: float
    rounds: int
    precision: str
    torch_compile: str
    dataset: Dataset

    def cases(self) -> list[tuple[str, int, int]]:
        """Returns network, k and r of every code."""
        return [(network, *code) for network in self.networks for code in self.codes]

    def subject(
        self, network: str, k: int, r: int, devices: int | None = None
    ) -> Subject:
        """Returns a code with random parameters."""
        return make_subject(self.dataset, network, k, r, self.precision, devices)

    def training_batches(self) -> list[int]:
        """Returns the batch sizes of training."""
        return [batch for batch in self.batches if batch > 1]


class Bench(NamedTuple):
    """Settings, PyTorch's jobs and the notes, of all sections."""

    settings: Settings
    torch: ModuleType | None  # torch_jobs
    notes: list[str]  # what could not be measured, and why


def pytorch() -> tuple[ModuleType | None, list[str]]:
    """Returns the module with PyTorch's jobs, or a note that says why there is none."""
    try:
        return importlib.import_module("benchmarks.torch_jobs"), []
    except (ImportError, OSError) as error:
        hint = "pip install 'coded_jax[bench]'"
        return None, [f"PyTorch is not timed ({error}): {hint}"]


def sides(
    bench: Bench, subject: Subject, make: str, *args: Any, compiles: bool = False
) -> dict[str, Any]:
    """Calls the function `make` of each framework's module with the subject.

    Returns:
      The results by framework.
    """
    results = {OURS: getattr(jax_jobs, make)(subject, *args)}
    if bench.torch is None:
        return results
    function = getattr(bench.torch, make)
    results[EAGER] = function(subject, *args)
    c, wanted = subject.config, bench.settings.torch_compile
    first = (c.k, c.r) == bench.settings.codes[0]
    if compiles and (wanted == "all" or wanted == "first" and first):
        try:
            results[COMPILE] = function(subject, *args, compile=True)
        except RuntimeError as error:
            bench.notes.append(f"{c.encoder} ({c.k},{c.r}), {args}: {error}")
    return results


def compare(
    bench: Bench, jobs: dict[str, Prepared], batch: int, **row: Any
) -> list[Row]:
    """Times the same job of several frameworks, and returns a row for each."""
    s = bench.settings
    calls = {name: prepared.job for name, prepared in jobs.items()}
    timings = profiling.measure(calls, s.seconds, s.rounds)
    one = {name: t.median / jobs[name].steps for name, t in timings.items()}
    best = {name: t.fastest / jobs[name].steps for name, t in timings.items()}
    rows = []
    for name, timing in timings.items():
        steps, ms = jobs[name].steps, one[name] * 1e3
        rows.append(
            {
                **row,
                "batch": batch,
                "framework": name,
                "ms": ms,
                "quartiles_ms": [q / steps * 1e3 for q in timing.quartiles],
                "fastest_ms": best[name] * 1e3,
                "rounds": timing.rounds,
                "calls": timing.calls * steps,
                "compile_s": jobs[name].compile_seconds,
                "ratio_to_eager": one[EAGER] / one[name] if EAGER in one else None,
                "fastest_ratio": best[EAGER] / best[name] if EAGER in best else None,
            }
        )
    return rows


def about(subject: Subject) -> Row:
    """Returns the fields of a row that name the code."""
    c = subject.config
    return {"network": c.encoder, "k": c.k, "r": c.r}


def with_rate(row: Row) -> Row:
    """Returns a row with its images per second."""
    return {**row, "images_per_second": row["batch"] / row["ms"] * 1e3}


def training(bench: Bench, subject: Subject) -> Iterator[Row]:
    """Times training steps at every batch size."""
    for batch in bench.settings.training_batches():
        jobs = sides(bench, subject, "train", batch, compiles=True)
        rows = compare(bench, jobs, batch, **about(subject))
        yield from map(with_rate, rows)


def inference(bench: Bench, subject: Subject) -> Iterator[Row]:
    """Times inferences at every batch size, with nothing and with data 0 lost."""
    for batch in bench.settings.batches:
        by_framework = sides(bench, subject, "infer", batch, compiles=True)
        for lost in by_framework[OURS]:
            jobs = {name: jobs[lost] for name, jobs in by_framework.items()}
            rows = compare(bench, jobs, batch, **about(subject), lost=lost)
            yield from map(with_rate, rows)


def shares(bench: Bench, subject: Subject) -> Iterator[Row]:
    """Times the parts of an inference, and their shares of the whole."""
    parts = sides(bench, subject, "parts", BATCH)
    for name, whole in sides(bench, subject, "infer", BATCH).items():
        parts[name]["whole"] = whole["data 0"]
    rows = []
    for part in parts[OURS]:
        jobs = {name: by_part[part] for name, by_part in parts.items()}
        rows += compare(bench, jobs, BATCH, **about(subject), part=part)
    of_whole = {row["framework"]: row["ms"] for row in rows if row["part"] == "whole"}
    for row in rows:
        yield {**row, "share": row["ms"] / of_whole[row["framework"]]}


def operations(bench: Bench, subject: Subject) -> Iterator[Row]:
    """Times single operations, and their share of the machine's measured limit."""
    cpu = jax.default_backend() == "cpu"
    side, length = (1024, 2**24) if cpu else (8192, 2**28)
    references = sides(bench, subject, "references", side, length)
    of_code = sides(bench, subject, "operations", BATCH)
    by_framework = {name: references[name] | jobs for name, jobs in of_code.items()}
    flops = {"matrix product": 2 * side**3, **jax_jobs.work(subject, BATCH)}
    count = sum(x.size for x in jax.tree.leaves(subject.params))
    traffic = {"add in place": 2 * 4 * length, "Adam": 7 * 4 * count}
    limits: dict[str, float] = {}
    for operation in by_framework[OURS]:
        unit, amount = "FLOP", flops.get(operation)
        if amount is None:
            unit, amount = "byte", traffic[operation]
        jobs = {name: jobs[operation] for name, jobs in by_framework.items()}
        rows = compare(bench, jobs, BATCH, **about(subject), operation=operation)
        speeds = [amount / row["ms"] / 1e6 for row in rows]
        limit = limits.setdefault(unit, max(speeds))  # the references come first
        for row, speed in zip(rows, speeds, strict=True):
            rate = {"unit": unit, "giga_per_second": speed, "of_limit": speed / limit}
            yield {**row, **rate}


def scaling(bench: Bench, network: str, k: int, r: int) -> Iterator[Row]:
    """Times each number of devices in a process of its own, since JAX fixes it at its
    start."""
    for devices in DEVICES:
        request = {"work": "scaling", "code": [network, k, r], "devices": devices}
        for row in in_process(request):
            yield {**row, "devices": devices}


def scale(bench: Bench, code: list, devices: int) -> Iterator[Row]:
    """Times training and inference on a number of devices, in this process."""
    startup.offer_cpu_devices(devices)
    if devices > len(jax.devices()):
        return
    subject, batch = bench.settings.subject(*code, devices), max(bench.settings.batches)
    jobs = {
        "training": jax_jobs.train(subject, batch),
        "inference": jax_jobs.infer(subject, batch)["data 0"],
    }
    for work, job in jobs.items():
        rows = compare(bench, {OURS: job}, batch, **about(subject), work=work)
        yield from map(with_rate, rows)


def memory(bench: Bench, network: str, k: int, r: int) -> Iterator[Row]:
    """Measures the peak memory of each job, in a process of its own."""
    batch = max(bench.settings.batches)
    for work in ("training", "inference"):
        row = {"network": network, "k": k, "r": r, "work": work, "batch": batch}
        code = [network, k, r]
        (peak,) = in_process({"work": "memory", "code": code, "job": work})
        request = {"job": peak.pop("sizes"), "batch": batch, "work": work, "calls": 3}
        yield {**row, "framework": OURS, **peak}
        if bench.torch is not None:
            request["examples"] = len(bench.settings.dataset.train.labels)
            script = Path(__file__).with_name("torch_baseline.py")
            peak = output_of([str(script), json.dumps(request)])
            yield {**row, "framework": EAGER, **peak}


def peak_memory(bench: Bench, code: list, job: str) -> Iterator[Row]:
    """Measures the peak memory of a job, in this process."""
    subject, batch = bench.settings.subject(*code), max(bench.settings.batches)
    before = profiling.peak_bytes()
    if job == "training":
        prepared = jax_jobs.train(subject, batch)
    else:
        prepared = jax_jobs.infer(subject, batch)["data 0"]
    prepared.job(3)
    yield {
        "before_bytes": before,
        "peak_bytes": profiling.peak_bytes(),
        "temporary_bytes": profiling.temporary_bytes(prepared.program),
        "sizes": jax_jobs.sizes(subject),
    }


def in_process(request: dict[str, Any]) -> list[Row]:
    """Runs the script with the same flags and a request, and returns its rows."""
    return output_of([str(SCRIPT), *sys.argv[1:], f"--worker={json.dumps(request)}"])


def output_of(command: list[str]) -> Any:
    """Runs a Python program, and returns the JSON of its last line."""
    # XLA's warnings about how it shards would stand between the bars.
    quiet = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"}
    done = subprocess.run(
        [sys.executable, *command], stdout=subprocess.PIPE, text=True, env=quiet
    )
    if done.returncode:
        raise RuntimeError(f"{shlex.join(command[:1])}: failed, see above")
    return json.loads(done.stdout.splitlines()[-1])


PROCESSES = {"scaling": scaling, "memory": memory}
"""Sections of the first code alone, in processes of their own."""

SECTIONS = {
    "training": training,
    "inference": inference,
    "shares": shares,
    "operations": operations,
}
WORKERS = {"scaling": scale, "memory": peak_memory}
"""The other side of `PROCESSES`: what those processes do."""

ALL = (*SECTIONS, *PROCESSES)


def run(bench: Bench) -> dict[str, list[Row]]:
    """Runs the sections that are asked for, and returns their rows."""
    settings = bench.settings
    cases, wanted = settings.cases(), settings.sections
    first = [case for case in cases if case[1:] == settings.codes[0]]
    apart = [name for name in PROCESSES if name in wanted]
    together = [name for name in SECTIONS if name in wanted]
    rows: dict[str, list[Row]] = {name: [] for name in wanted}
    with progress_bars(Console(stderr=True)) as progress:
        total = len(apart) * len(first) + len(together) * len(cases)
        bar = progress.add_task("benchmark", total=total, note="")

        def add(name: str, case: tuple, measured: Iterator[Row]) -> None:
            progress.update(bar, note=f"{name}, {case[0]} {case[1:]}")
            rows[name] += measured
            progress.advance(bar)

        # First, since an accelerator may be open in one process only.
        for name, case in itertools.product(apart, first):
            add(name, case, PROCESSES[name](bench, *case))
        for case in cases if together else []:
            subject = settings.subject(*case)
            for name in together:
                add(name, case, SECTIONS[name](bench, subject))
    return rows


def trace(settings: Settings, folder: str) -> None:
    """Writes a profiler trace of a few training steps, for TensorBoard or Perfetto."""
    subject = settings.subject(*settings.cases()[0])
    prepared = jax_jobs.train(subject, max(settings.batches))
    prepared.job(2)
    with jax.profiler.trace(folder):
        prepared.job(5)
