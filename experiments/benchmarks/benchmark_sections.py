"""The sections of `benchmark.py`: what is timed, and the rows that it gives.

A row is a flat dict. All have `network`, `k`, `r`, `batch` and `framework`, one of
`coded_jax`, `pytorch` (eager) and `pytorch_compile`. Those with times have

    ms               median over the rounds of one step, call or inference
    quartiles_ms     the first and the third
    fastest_ms       of the fastest round: what a machine that does other things as well
                     disturbs least
    rounds, calls    how many rounds, and calls in each
    compile_s        seconds of compilation, not in the times; 0 for PyTorch eager
    ratio_to_eager   how many times as fast as PyTorch eager, by the medians; null
                     without PyTorch
    fastest_ratio    the same by the fastest rounds

and some have fields of their own:

    training, inference, scaling   images_per_second
    inference        lost, `nothing` or `data 0`
    shares           part, one of encode, f_conv, decode, whole; share of the whole
    scaling          devices; work, `training` or `inference`
    operations       operation; unit, `FLOP` or `byte`; giga_per_second; of_limit, the
                     share of the best matrix product or addition of either framework
    memory           work; before_bytes, with the data loaded; peak_bytes;
                     temporary_bytes, of the compiled program; no times
"""

from __future__ import annotations

import importlib
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

from benchmarks import benchmark_jax, profiling
from benchmarks.benchmark_jax import Subject, make_subject
from benchmarks.benchmark_tables import COMPILE, EAGER, OURS, Row
from benchmarks.profiling import Prepared
from coded_jax.devices import startup
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
        """Network, k and r of every code."""
        return [(network, *code) for network in self.networks for code in self.codes]

    def subject(
        self, network: str, k: int, r: int, devices: int | None = None
    ) -> Subject:
        return make_subject(self.dataset, network, k, r, self.precision, devices)

    def training_batches(self) -> list[int]:
        return [batch for batch in self.batches if batch > 1]


class Bench(NamedTuple):
    """What every section needs."""

    settings: Settings
    torch: ModuleType | None  # benchmark_torch
    notes: list[str]  # what could not be measured, and why


def pytorch() -> tuple[ModuleType | None, list[str]]:
    """The module with PyTorch's jobs, or a note that says why there is none."""
    try:
        return importlib.import_module("benchmarks.benchmark_torch"), []
    except (ImportError, OSError) as error:
        hint = "pip install 'coded_jax[bench]'"
        return None, [f"PyTorch is not timed ({error}): {hint}"]


def sides(
    bench: Bench, subject: Subject, make: str, *args: Any, compiles: bool = False
) -> dict[str, Any]:
    """What `make` of each framework's module returns for the subject."""
    made = {OURS: getattr(benchmark_jax, make)(subject, *args)}
    if bench.torch is None:
        return made
    function = getattr(bench.torch, make)
    made[EAGER] = function(subject, *args)
    c, wanted = subject.config, bench.settings.torch_compile
    first = (c.k, c.r) == bench.settings.codes[0]
    if compiles and (wanted == "all" or wanted == "first" and first):
        try:
            made[COMPILE] = function(subject, *args, compile=True)
        except RuntimeError as error:
            bench.notes.append(f"{c.encoder} ({c.k},{c.r}), {args}: {error}")
    return made


def compare(
    bench: Bench, jobs: dict[str, Prepared], batch: int, **row: Any
) -> list[Row]:
    """Times the same job of several frameworks; one row for each."""
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
    c = subject.config
    return {"network": c.encoder, "k": c.k, "r": c.r}


def with_rate(row: Row) -> Row:
    return {**row, "images_per_second": row["batch"] / row["ms"] * 1e3}


def training(bench: Bench, subject: Subject) -> Iterator[Row]:
    for batch in bench.settings.training_batches():
        jobs = sides(bench, subject, "train", batch, compiles=True)
        rows = compare(bench, jobs, batch, **about(subject))
        yield from map(with_rate, rows)


def inference(bench: Bench, subject: Subject) -> Iterator[Row]:
    for batch in bench.settings.batches:
        made = sides(bench, subject, "infer", batch, compiles=True)
        for lost in made[OURS]:
            jobs = {name: jobs[lost] for name, jobs in made.items()}
            rows = compare(bench, jobs, batch, **about(subject), lost=lost)
            yield from map(with_rate, rows)


def shares(bench: Bench, subject: Subject) -> Iterator[Row]:
    made = sides(bench, subject, "parts", BATCH)
    whole = sides(bench, subject, "infer", BATCH)
    made = {name: {**p, "whole": whole[name]["data 0"]} for name, p in made.items()}
    rows = []
    for part in made[OURS]:
        jobs = {name: parts[part] for name, parts in made.items()}
        rows += compare(bench, jobs, BATCH, **about(subject), part=part)
    of_whole = {row["framework"]: row["ms"] for row in rows if row["part"] == "whole"}
    for row in rows:
        yield {**row, "share": row["ms"] / of_whole[row["framework"]]}


def operations(bench: Bench, subject: Subject) -> Iterator[Row]:
    """Rows with `giga_per_second` (of FLOPs, or bytes) and its share of the limit."""
    cpu = jax.default_backend() == "cpu"
    side, length = (1024, 2**24) if cpu else (8192, 2**28)
    made = sides(bench, subject, "operations", BATCH)
    basic = sides(bench, subject, "references", side, length)
    made = {name: {**basic[name], **jobs} for name, jobs in made.items()}
    flops = {"matrix product": 2 * side**3, **benchmark_jax.work(subject, BATCH)}
    count = sum(x.size for x in jax.tree.leaves(subject.params))
    moved = {"add in place": 2 * 4 * length, "Adam": 7 * 4 * count}
    limits: dict[str, float] = {}
    for operation in made[OURS]:
        unit, amount = "FLOP", flops.get(operation)
        if amount is None:
            unit, amount = "byte", moved[operation]
        jobs = {name: jobs[operation] for name, jobs in made.items()}
        rows = compare(bench, jobs, BATCH, **about(subject), operation=operation)
        speeds = [amount / row["ms"] / 1e6 for row in rows]
        limit = limits.setdefault(unit, max(speeds))  # the references come first
        for row, speed in zip(rows, speeds, strict=True):
            rate = {"unit": unit, "giga_per_second": speed, "of_limit": speed / limit}
            yield {**row, **rate}


def scaling(bench: Bench, network: str, k: int, r: int) -> Iterator[Row]:
    """Each number of devices in a process of its own: it is fixed when JAX starts."""
    for devices in DEVICES:
        request = {"work": "scaling", "code": [network, k, r], "devices": devices}
        for row in in_process(request):
            yield {**row, "devices": devices}


def scaling_here(bench: Bench, code: list, devices: int) -> Iterator[Row]:
    startup.offer_cpu_devices(devices)
    if devices > len(jax.devices()):
        return
    subject, batch = bench.settings.subject(*code, devices), max(bench.settings.batches)
    jobs = {
        "training": benchmark_jax.train(subject, batch),
        "inference": benchmark_jax.infer(subject, batch)["data 0"],
    }
    for work, job in jobs.items():
        rows = compare(bench, {OURS: job}, batch, **about(subject), work=work)
        yield from map(with_rate, rows)


def memory(bench: Bench, network: str, k: int, r: int) -> Iterator[Row]:
    """Each job in a process of its own, of which this is the peak."""
    batch = max(bench.settings.batches)
    for work in ("training", "inference"):
        row = {"network": network, "k": k, "r": r, "work": work, "batch": batch}
        found = in_process({"work": "memory", "code": [network, k, r], "job": work})[0]
        request = {"job": found.pop("sizes"), "batch": batch, "work": work, "calls": 3}
        yield {**row, "framework": OURS, **found}
        if bench.torch is not None:
            request["examples"] = len(bench.settings.dataset.train.labels)
            script = Path(__file__).with_name("torch_baseline.py")
            found = output_of([str(script), json.dumps(request)])
            yield {**row, "framework": EAGER, **found}


def memory_here(bench: Bench, code: list, job: str) -> Iterator[Row]:
    subject, batch = bench.settings.subject(*code), max(bench.settings.batches)
    before = profiling.peak_bytes()
    if job == "training":
        prepared = benchmark_jax.train(subject, batch)
    else:
        prepared = benchmark_jax.infer(subject, batch)["data 0"]
    prepared.job(3)
    yield {
        "before_bytes": before,
        "peak_bytes": profiling.peak_bytes(),
        "temporary_bytes": profiling.temporary_bytes(prepared.program),
        "sizes": benchmark_jax.sizes(subject),
    }


def in_process(request: dict[str, Any]) -> list[Row]:
    """What this script, with the same flags, makes of a request."""
    return output_of([str(SCRIPT), *sys.argv[1:], f"--worker={json.dumps(request)}"])


def output_of(command: list[str]) -> Any:
    """The JSON in the last line that a Python program prints."""
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
WORKERS = {"scaling": scaling_here, "memory": memory_here}
