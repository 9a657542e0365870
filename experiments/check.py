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
from coded_jax.service.byzantine import rival, study
from coded_jax.service.byzantine.calibration import calibrate

WORKDIR = flags.DEFINE_string("workdir", None, "of a finished run", required=True)
DATA_DIR = flags.DEFINE_string("data_dir", None, "see `run.py`")
RATE = flags.DEFINE_float("rate", 1e-3, "images with a false alarm at most, a fraction")
SEED = flags.DEFINE_integer("seed", 0, "of the faults, and of random features")
LOCATOR = flags.DEFINE_list("locator", [], "numbers of images coded together")
OUTPUT = flags.DEFINE_string("output", None, "JSON file; nothing is measured without")
BATCHES = (1, 64)


@command()
def main(argv: list[str]) -> None:
    started, folder = time.perf_counter(), Path(WORKDIR.value)
    model = load(folder)
    config = model.results["config"]
    dataset = data.load(
        model.results["dataset"], DATA_DIR.value, config.get("image_size")
    )
    images, training = dataset.validation.images, dataset.train.images
    check = calibrate(model, images, training, RATE.value, SEED.value)
    check.save(folder)
    seconds = {"calibrate": time.perf_counter() - started}
    Console().print(json.dumps(check.record), highlight=False, soft_wrap=True)
    if OUTPUT.value is None:
        return
    found = study.measure(model, check, dataset.test, SEED.value)
    located = {
        str(k): rival.measure(model, dataset.test, k, SEED.value)
        for k in integers("locator", LOCATOR.value)
    }
    times = {
        str(size): study.milliseconds(model, check, dataset.test.images[:size])
        for size in BATCHES
    }
    seconds["total"] = time.perf_counter() - started
    content: dict[str, Any] = {
        **origin(),
        "run": {
            name: model.results[name] for name in ("config", "dataset", "base", "split")
        },
        "seed": SEED.value,
        "check": check.record,
        **found,
        "locator": located,
        "milliseconds": times,
        "timing": {"seconds": seconds},
    }
    path = Path(OUTPUT.value)
    workdir.make_folder(path.parent, "output")
    workdir.write_atomically(path, json.dumps(content, indent=1) + "\n")
    Console().print(json.dumps(found), highlight=False, soft_wrap=True)


if __name__ == "__main__":
    run(main)
