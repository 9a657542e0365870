"""Base models that are kept for other runs: variables alone, in half precision.

Two checkpoints of a training, each with the variables, the best ones and the state of
the optimizer, are 12 times as many bytes with momentum. What is kept here is a
`base_dir` like any other, whose runs begin with its variables in place of a training.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import jax
import jax.numpy as jnp

from coded_jax.checks import require
from coded_jax.devices import processes
from coded_jax.runs.config import Config
from coded_jax.runs.places import absolute
from coded_jax.runs.regime import BASE, regime_of
from coded_jax.runs.variables import VARIABLES, read_variables, save_variables
from coded_jax.runs.workdir import (
    SOURCES,
    RunFlags,
    checkpoint_folder,
    open_workdir,
    write_atomically,
)
from coded_jax.training import checkpoints
from coded_jax.training.steps import Best, initial_state
from coded_jax.types import BaseModel, Dataset, PyTree

RECORD = "base.json"
"""Says how the base model was trained, and what it reaches."""


def halved(variables: PyTree) -> PyTree:
    """Returns variables as they come back from a folder: rounded to float16."""
    return jax.tree.map(lambda x: _half(x).astype(x.dtype), variables)


def _half(x: jax.Array) -> jax.Array:
    return x.astype(jnp.float16) if x.dtype == jnp.float32 else x


def keep(folder: Path, config: Config, variables: PyTree, record: dict) -> None:
    """Writes a base model into a `base_dir`, with what is known of its training.

    Args:
      folder: new or empty.
      config: of the run that trained it.
      variables: nested dicts of arrays.
      record: JSON, for `base.json`.

    Raises:
      ValueError: the folder has another base model, or cannot be written to.
    """
    flags = RunFlags(config.base.to_flags(), {}, Config().to_flags())
    folder = open_workdir(folder, flags, name="base_dir")
    # Later runs take it as data are taken; its record says what code made it.
    (folder / SOURCES).unlink(missing_ok=True)
    save_variables(folder, jax.tree.map(_half, variables))
    fits = (folder / VARIABLES).exists()
    require("variables", type(variables).__name__, fits, "nested dicts of real arrays")
    write_atomically(folder / RECORD, json.dumps(record, indent=1) + "\n")


def is_kept(base_folder: Path) -> bool:
    """Returns whether a `base_dir` has a base model of `keep`, not checkpoints."""
    return (base_folder / RECORD).exists()


def read(base_folder: Path) -> PyTree:
    """Returns the variables of a base model that is kept, real ones as float32."""
    whole = lambda x: x.astype(jnp.float32) if x.dtype == jnp.float16 else x
    variables = read_variables(base_folder)
    require(
        "base_dir", str(base_folder), variables is not None, f"one with {VARIABLES}"
    )
    return jax.tree.map(whole, variables)


def start_of(
    config: Config, base: BaseModel, dataset: Dataset, folders: Iterable[Path | None]
) -> PyTree | None:
    """Returns the variables that the base model's training begins with.

    Args:
      config: of the run.
      base: the base model.
      dataset: that it is trained on.
      folders: that may have it already, kept or with its checkpoints.

    Returns:
      None where it begins anew, or has begun already.

    Raises:
      ValueError: `base_start` has none, or those of another network.
    """
    begun = lambda f: f and (is_kept(f) or checkpoint_folder(f, BASE).exists())
    if config.base_start is None or any(map(begun, folders)):
        return None
    folder = absolute(config.base_start, "base_start")
    variables = read(folder) if is_kept(folder) else None
    sizes = (dataset.image_shape, dataset.classes)
    drawn = jax.eval_shape(lambda: base.init(jax.random.key(0), *sizes))
    shapes = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)
    fits = variables is not None and shapes(variables) == shapes(drawn)
    accepted = (
        f"a folder of keep_base.py with a {config.base_model} of width "
        f"{config.base_width:g} for {dataset.classes} classes"
    )
    require("base_start", config.base_start, fits, accepted)
    return variables


def take(base_folder: Path, folder: Path, config: Config, examples: int) -> None:
    """Puts a base model that is kept into a run's folder, as if just trained there; all
    processes at the same time.

    Args:
      base_folder: of `keep`.
      folder: the workdir of the run; left as it is where it has checkpoints of a base.
      config: of the run.
      examples: of the training split.
    """
    target = checkpoint_folder(folder, BASE)
    missing = processes.is_lead() and not target.exists()
    if not processes.any_process(missing):
        return
    record, variables = (
        json.loads((base_folder / RECORD).read_text()),
        read(base_folder),
    )
    regime = regime_of(config, BASE)
    optimizer, steps = regime.optimizer(examples), regime.steps(examples)
    key = jax.random.key(0)
    state, best = initial_state(lambda key: variables, optimizer, key)
    score = jnp.asarray(record["base"]["validation_accuracy"], jnp.float32)
    done = state._replace(step=jnp.asarray(steps, jnp.int32))
    seconds = record["timing"]["seconds"]["base"]
    checkpoints.save(target, steps, (done, Best(score, best.params)), seconds=seconds)
