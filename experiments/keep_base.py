r"""Keeps the base model of a finished run for other runs: a few MB in a folder.

    python experiments/keep_base.py --workdir=runs/base_cifar10_vgg16 \
        --base_dir=experiments/bases/cifar10_vgg16

Runs with `--base_dir` of that folder then begin with it. Variables are rounded to
float16; what they reach so is measured on the validation and the test part, and written
into `base.json`, with command, time and machine of the training.
"""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
from absl import flags
from rich.console import Console

import coded_jax
from coded_jax import data
from coded_jax.cli.command_line import command, run
from coded_jax.evaluation import pattern_accuracy
from coded_jax.runs import kept_base
from coded_jax.runs.config import Config
from coded_jax.runs.workdir import FLAGS, absolute, open_workdir, write_atomically
from coded_jax.training import tasks

WORKDIR = flags.DEFINE_string("workdir", None, "of the finished run", required=True)
BASE_DIR = flags.DEFINE_string("base_dir", None, "folder to be made", required=True)
DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "folder of data, as the run was given it"
)
KEPT = ("provenance", "versions", "machine", "seed", "steps", "dataset", "image_shape")


@command()
def main(argv: list[str]) -> None:
    folder = absolute(BASE_DIR.value, "base_dir")
    model = coded_jax.load(WORKDIR.value, devices=1)
    results = model.results
    config = Config.from_json(results["config"])
    dataset = data.load(config.dataset, DATA_DIR.value, config.image_size)
    cast = lambda tree, before, after: jax.tree.map(
        lambda x: x.astype(after) if x.dtype == before else x, tree
    )
    rounded = cast(model.frozen, jnp.float32, jnp.float16)
    variables = cast(rounded, jnp.float16, jnp.float32)
    accuracies = {}
    for part in ("validation", "test"):
        arrays = tasks.device_arrays(model.pipeline.mesh, getattr(dataset, part))
        accuracies[f"{part}_accuracy"] = pattern_accuracy.base_accuracy(
            model.pipeline, variables, arrays
        )
    numbers = sum(leaf.size for leaf in jax.tree.leaves(variables))
    network = {"model": config.base_model, "width": config.base_width}
    record = {
        "command": results["command"],
        **{name: results[name] for name in KEPT},
        "network": {**network, "epochs": config.base_epochs, "numbers": numbers},
        "base": accuracies,
        "before_rounding": results["base"],
        "timing": {"seconds": {"base": results["timing"]["seconds"]["base"]}},
    }
    folder = open_workdir(folder, config.base.to_flags(), name="base_dir")
    # It is where it is, on any machine.
    lines = (folder / FLAGS).read_text().splitlines()
    lines = [line for line in lines if not line.startswith("--workdir=")]
    write_atomically(folder / FLAGS, "\n".join(lines) + "\n")
    kept_base.save_variables(folder, rounded)
    write_atomically(folder / kept_base.RECORD, json.dumps(record, indent=1) + "\n")
    Console(soft_wrap=True, highlight=False).print(
        f"{BASE_DIR.value}: {json.dumps(accuracies)}, {2 * numbers / 1e6:.1f} MB"
    )


if __name__ == "__main__":
    run(main)
