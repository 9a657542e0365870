r"""Times this project and the same job in PyTorch, in turns, in one run.

    pip install 'coded_jax[bench]'
    python experiments/benchmark.py

It prints tables, and writes a JSON file that has a list of rows for each of
`--sections`. Without PyTorch it times this project alone. Every time is the median of
several rounds; compilation is apart.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any

from absl import flags
from benchmarks import jax_jobs, profiling, sections
from benchmarks.rows import TRAINING, targets
from benchmarks.sections import Bench, Settings
from benchmarks.tables import tables
from rich.console import Console

from coded_jax import data
from coded_jax.checks import require
from coded_jax.cli.command_line import command, run
from coded_jax.codes.config import PRECISIONS
from coded_jax.devices import startup
from coded_jax.runs import config, workdir

EXAMPLES = 4096
BUSY = 0.5  # load average

flags.DEFINE_string("output", "runs/benchmark.json", "JSON file to be written")
flags.DEFINE_list("sections", list(sections.ALL), f"some of {', '.join(sections.ALL)}")
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


def settings_from_flags(values: dict[str, Any]) -> Settings:
    """Returns the checked flags, and the images.

    Raises:
      ValueError: a value is out of range.
    """

    def chosen(name: str, choices: tuple[str, ...]) -> tuple[str, ...]:
        accepted = bool(values[name]) and set(values[name]) <= set(choices)
        require(name, values[name], accepted, f"some of {list(choices)}")
        return tuple(x for x in choices if x in values[name])

    def numbers(name: str, texts: list[str]) -> tuple[int, ...]:
        accepted = bool(texts) and all(x.isdecimal() and int(x) for x in texts)
        require(name, values[name], accepted, "positive integers")
        return tuple(map(int, texts))

    codes = tuple(numbers("codes", code.split("+")) for code in values["codes"])
    pairs = {len(code) for code in codes} == {2}
    require("codes", values["codes"], pairs, "k+r, as 2+1,")
    seconds = values["seconds"]
    require("seconds", seconds, 0 < seconds <= 3600, "more than 0 and at most 3600")
    batches = numbers("batch_sizes", values["batch_sizes"])
    if values["dataset"] is None:
        dataset = jax_jobs.noise(max(EXAMPLES, *batches))
    else:
        dataset = data.load(values["dataset"], values["data_dir"])
    most = len(dataset.train.labels)
    require("batch_sizes", values["batch_sizes"], max(batches) <= most, f"1..{most}")
    settings = Settings(
        sections=chosen("sections", sections.ALL),
        codes=codes,
        networks=chosen("networks", tuple(TRAINING)),
        batches=batches,
        seconds=seconds,
        rounds=values["rounds"],
        precision=values["precision"],
        torch_compile=values["torch_compile"],
        dataset=dataset,
    )
    for network, k, r in settings.cases():
        config.Config(k=k, r=r, encoder=network)  # raises what is wrong with it
    return settings


def measure(settings: Settings, output: Path, trace: str | None) -> None:
    """Runs the sections, writes their rows, and prints tables of them."""
    output.parent.mkdir(parents=True, exist_ok=True)
    torch, notes = sections.pytorch()
    report = {
        "command": shlex.join(["python", *sys.argv]),
        "versions": workdir.versions(),
        "load_average": profiling.load_average(),
        "pytorch": torch.set_up() if torch else None,
        **sections.run(Bench(settings, torch, notes)),
    }
    if trace:
        sections.trace(settings, trace)
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
    print(f"all of it is in {output}")


@command()
def main(argv: list[str]) -> None:
    startup.keep_memory()  # as run.py does; it serves PyTorch as well
    # Else JAX leaves no memory of a GPU for PyTorch and for processes of its own.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    values = flags.FLAGS.flag_values_dict()
    settings = settings_from_flags(values)
    if values["worker"]:
        request = json.loads(values["worker"])
        worker = sections.WORKERS[request.pop("work")]
        print(json.dumps(list(worker(Bench(settings, None, []), **request))))
    else:
        measure(settings, Path(values["output"]), values["trace"])


if __name__ == "__main__":
    run(main)
