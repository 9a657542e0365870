r"""Times this project and the same job in PyTorch, in turns, in one run.

    pip install 'coded_jax[bench]'
    python experiments/benchmark.py

It prints tables, and writes a JSON file that has a list of rows for each of
`--sections`. Without PyTorch it times this project alone. Every time is the median of
several rounds; compilation is apart.
"""

from __future__ import annotations

import itertools
import json
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
from absl import app, flags, logging
from benchmarks import benchmark_jax, profiling
from benchmarks.benchmark_sections import (
    PROCESSES,
    SECTIONS,
    WORKERS,
    Bench,
    Settings,
    pytorch,
)
from benchmarks.benchmark_tables import TRAINING, Row, tables, targets
from rich.console import Console

from coded_jax import data
from coded_jax.cli.command_line import parse_flags, refuse_arguments
from coded_jax.codes.config import PRECISIONS
from coded_jax.devices import startup
from coded_jax.runs import config, workdir
from coded_jax.runs.progress import progress_bars

ALL_SECTIONS = (*SECTIONS, *PROCESSES)
EXAMPLES = 4096
BUSY = 0.5  # load average

flags.DEFINE_string("output", "runs/benchmark.json", "JSON file to be written")
flags.DEFINE_list("sections", list(ALL_SECTIONS), f"some of {', '.join(ALL_SECTIONS)}")
flags.DEFINE_list("codes", ["2+1", "4+1", "4+2"], "codes, each as k+r")
flags.DEFINE_list("networks", list(TRAINING), f"some of {', '.join(TRAINING)}")
flags.DEFINE_list("batch_sizes", ["1", "64", "256"], "training leaves out 1")
flags.DEFINE_float("seconds", 0.5, "for each measurement, about")
flags.DEFINE_integer("rounds", 7, "of each measurement, in turns", lower_bound=2)
flags.DEFINE_enum(
    "precision", "float32", PRECISIONS, "as in run.py; autocast in PyTorch"
)
flags.DEFINE_string("dataset", None, "random images if not given")
flags.DEFINE_string("data_dir", None, "as in run.py")
flags.DEFINE_enum(
    "torch_compile",
    "first",
    ("none", "first", "all"),
    "the codes that torch.compile is tried on, at every batch size",
)
flags.DEFINE_string("trace", None, "folder for a profiler trace of a few steps")
flags.DEFINE_string("worker", None, "used by the script, for processes of its own")


def settings_from_flags() -> Settings:
    values = flags.FLAGS.flag_values_dict()

    def refuse(name: str, accepted: str) -> None:
        raise ValueError(f"{name}: {values[name]} given, {accepted} accepted")

    def some(name: str, known: tuple[str, ...]) -> tuple[str, ...]:
        if not values[name] or not set(values[name]) <= set(known):
            refuse(name, f"some of {list(known)}")
        return tuple(x for x in known if x in values[name])

    def numbers(name: str, texts: list[str]) -> tuple[int, ...]:
        if not texts or not all(x.isdecimal() and int(x) for x in texts):
            refuse(name, "positive integers")
        return tuple(map(int, texts))

    codes = tuple(numbers("codes", code.split("+")) for code in values["codes"])
    if not codes or {len(code) for code in codes} != {2}:
        refuse("codes", "k+r, as 2+1,")
    if not 0 < values["seconds"] <= 3600:
        refuse("seconds", "more than 0 and at most 3600")
    batches = numbers("batch_sizes", values["batch_sizes"])
    if values["dataset"] is None:
        dataset = benchmark_jax.noise(max(EXAMPLES, *batches))
    else:
        dataset = data.load(values["dataset"], values["data_dir"])
    if max(batches) > len(dataset.train.labels):
        refuse("batch_sizes", f"1..{len(dataset.train.labels)}")
    settings = Settings(
        some("sections", ALL_SECTIONS),
        codes,
        some("networks", tuple(TRAINING)),
        batches,
        values["seconds"],
        values["rounds"],
        values["precision"],
        values["torch_compile"],
        dataset,
    )
    for network, k, r in settings.cases():
        config.Config(k=k, r=r, encoder=network)  # raises what is wrong with it
    return settings


def work_for_parent(settings: Settings, request: dict[str, Any]) -> None:
    here = WORKERS[request.pop("work")]
    print(json.dumps(list(here(Bench(settings, None, []), **request))))


def run(bench: Bench) -> dict[str, list[Row]]:
    """The rows of every section."""
    settings = bench.settings
    cases, wanted = settings.cases(), settings.sections
    first = [case for case in cases if case[1:] == settings.codes[0]]
    apart = [name for name in PROCESSES if name in wanted]
    here = [name for name in SECTIONS if name in wanted]
    rows: dict[str, list[Row]] = {name: [] for name in wanted}
    with progress_bars(Console(stderr=True)) as progress:
        total = len(apart) * len(first) + len(here) * len(cases)
        bar = progress.add_task("benchmark", total=total, note="")

        def add(name: str, case: tuple, found: Iterator[Row]) -> None:
            progress.update(bar, note=f"{name}, {case[0]} {case[1:]}")
            rows[name] += found
            progress.advance(bar)

        # First, since an accelerator may be open in one process only.
        for name, case in itertools.product(apart, first):
            add(name, case, PROCESSES[name](bench, *case))
        for case in cases if here else []:
            subject = settings.subject(*case)
            for name in here:
                add(name, case, SECTIONS[name](bench, subject))
    return rows


def trace(settings: Settings, folder: str) -> None:
    """Writes a profiler trace of a few training steps, for TensorBoard or Perfetto."""
    subject = settings.subject(*settings.cases()[0])
    prepared = benchmark_jax.train(subject, max(settings.batches))
    prepared.job(2)
    with jax.profiler.trace(folder):
        prepared.job(5)


def main(argv: list[str]) -> None:
    refuse_arguments(argv)
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)  # no notes on accelerators not found
    startup.keep_memory()  # as run.py does; it serves PyTorch as well
    # Else JAX leaves no memory of a GPU for PyTorch and for processes of its own.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    values = flags.FLAGS.flag_values_dict()
    try:
        settings = settings_from_flags()
        if values["worker"]:
            work_for_parent(settings, json.loads(values["worker"]))
            return
        output = Path(values["output"])
        output.parent.mkdir(parents=True, exist_ok=True)
        torch, notes = pytorch()
        bench = Bench(settings, torch, notes)
        report = {
            "command": shlex.join(["python", *sys.argv]),
            "versions": workdir.versions(),
            "load_average": profiling.load_average(),
            "pytorch": torch.set_up() if torch else None,
            **run(bench),
        }
        if values["trace"]:
            trace(settings, values["trace"])
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    report["machine"] = profiling.machine()
    if (report["load_average"] or 0) > BUSY:
        notes.append(
            f"load average {report['load_average']} before the start: other processes "
            "were running, which slows PyTorch's threads more than those of JAX; "
            "OMP_WAIT_POLICY=passive lessens that"
        )
    report["targets"] = targets(report)
    report["notes"] = notes
    workdir.write_atomically(output, json.dumps(report, indent=1) + "\n")
    Console(markup=False).print(tables(report), highlight=False)
    print(f"all of it is in {values['output']}")


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
