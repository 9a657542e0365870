"""Calibrates the check of a run's results, and measures what it finds on test images.

    python experiments/check.py --workdir=runs/checks/lenet5_k4_r2 --locator=4,8 \
        --output=experiments/results/checks/lenet5_k4_r2.json

Written are `check.npz` into the workdir, for whoever serves it, and with `--output`
what it finds of every kind of wrong result; with `--locator` also what ApproxIFER's
error locator finds among as many images coded together, with the same base model.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from absl import flags
from rich.console import Console

from coded_jax import data
from coded_jax.cli.command_line import command, integers, origin, run
from coded_jax.runs import workdir
from coded_jax.runs.load import load
from coded_jax.service.byzantine import study
from coded_jax.service.byzantine.calibration import calibrate

WORKDIR = flags.DEFINE_string("workdir", None, "of a finished run", required=True)
DATA_DIR = flags.DEFINE_string("data_dir", None, "see `run.py`")
SEED = flags.DEFINE_integer("seed", 0, "of the faults, and of random features")
LOCATOR = flags.DEFINE_list("locator", [], "numbers of images coded together")
OUTPUT = flags.DEFINE_string("output", None, "JSON file; nothing is measured without")
BATCHES = (1, 64)


@command()
def main(argv: list[str]) -> None:
    console = Console(highlight=False, soft_wrap=True)
    started, folder, seed = time.perf_counter(), Path(WORKDIR.value), SEED.value
    model = load(folder)
    results = model.results
    size = results["config"].get("image_size")
    dataset = data.load(results["dataset"], DATA_DIR.value, size)
    images, training = dataset.validation.images, dataset.train.images
    check = calibrate(model, images, training, seed)
    check.save(folder)
    seconds = {"calibrate": time.perf_counter() - started}
    console.print(json.dumps(check.record))
    if OUTPUT.value is None:
        return
    found, test = study.measure_check(model, check, dataset.test, seed), dataset.test
    together = integers("locator", LOCATOR.value)
    content: dict[str, Any] = {
        **origin(),
        "run": {x: results[x] for x in ("config", "dataset", "base", "split")},
        "seed": seed,
        "check": check.record,
        **found,
        "locator": {
            str(k): study.measure_locator(model, test, k, seed) for k in together
        },
        "milliseconds": {
            str(count): study.milliseconds(model, check, test.images[:count])
            for count in BATCHES
        },
    }
    seconds["total"] = time.perf_counter() - started
    content["timing"] = {"seconds": seconds}
    path = Path(OUTPUT.value)
    workdir.make_folder(path.parent, "output")
    workdir.write_atomically(path, json.dumps(content, indent=1) + "\n")
    console.print(json.dumps(found))


if __name__ == "__main__":
    run(main)
