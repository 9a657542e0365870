"""Base models that are kept for other runs: variables alone, in half precision.

Two checkpoints of a training, each with the variables, the best ones and the state of
the optimizer, are 12 times as many bytes with momentum. What is kept here is a
`base_dir` like any other, whose runs begin with its variables in place of a training.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from coded_jax.checks import require
from coded_jax.devices import processes
from coded_jax.runs.build import variable_shapes
from coded_jax.runs.config import BaseConfig, Config
from coded_jax.runs.phases import BASE, Regime
from coded_jax.runs.workdir import (
    FLAGS,
    absolute,
    checkpoint_folder,
    open_workdir,
    write_atomically,
)
from coded_jax.training import checkpoints
from coded_jax.training.steps import Best, initial_state
from coded_jax.types import BaseModel, Dataset, PyTree

VARIABLES = "variables.npz"
RECORD = "base.json"
"""Says how the base model was trained, and what it reaches."""


def halved(variables: PyTree) -> PyTree:
    """Returns variables as they come back from a folder: rounded to float16."""
    return _cast(_cast(variables, jnp.float32, jnp.float16), jnp.float16, jnp.float32)


def _cast(variables: PyTree, before: Any, after: Any) -> PyTree:
    cast = lambda x: x.astype(after) if x.dtype == before else x
    return jax.tree.map(cast, variables)


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
    folder = open_workdir(folder, config.base.to_flags(), name="base_dir")
    # It is where it is, on any machine.
    lines = (folder / FLAGS).read_text().splitlines()
    lines = [line for line in lines if not line.startswith("--workdir=")]
    write_atomically(folder / FLAGS, "\n".join(lines) + "\n")
    save_variables(folder, _cast(variables, jnp.float32, jnp.float16))
    write_atomically(folder / RECORD, json.dumps(record, indent=1) + "\n")


def is_kept(base_folder: Path) -> bool:
    """Returns whether a `base_dir` has a base model of `keep`, not checkpoints."""
    return (base_folder / RECORD).exists()


class Kept(NamedTuple):
    """A base model that is kept.

    Attributes:
      variables: real ones as float32.
      score: its accuracy on the validation part.
      seconds: of its training.
    """

    variables: PyTree
    score: float
    seconds: float


def read(folder: Path, name: str = "base_dir") -> Kept:
    """Returns the base model of a folder.

    Raises:
      ValueError: a file is damaged or missing.
    """
    try:
        record = json.loads((folder / RECORD).read_text())
        score = float(record["base"]["validation_accuracy"])
        seconds = float(record["timing"]["seconds"]["base"])
        variables = _cast(read_variables(folder), jnp.float16, jnp.float32)
    except (OSError, ValueError, LookupError, TypeError, zipfile.BadZipFile):
        variables = None
    accepted = f"a folder whose {RECORD} and {VARIABLES} are not damaged"
    require(name, str(folder), variables is not None, accepted)
    return Kept(variables, score, seconds)


def start_of(
    config: BaseConfig, base: BaseModel, dataset: Dataset, folders: Iterable[Path]
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
    begun = lambda f: is_kept(f) or checkpoint_folder(f, BASE).exists()
    if config.base_start is None or any(map(begun, folders)):
        return None
    folder = absolute(config.base_start, "base_start")
    variables = read(folder, "base_start").variables if is_kept(folder) else None
    drawn = variable_shapes(base, dataset.image_shape, dataset.classes)
    shapes = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)
    accepted = (
        f"a folder of keep_base.py with a {config.base_model} of width "
        f"{config.base_width:g} for {dataset.classes} classes"
    )
    fits = shapes(variables) == shapes(drawn)
    require("base_start", config.base_start, fits, accepted)
    return variables


def take(base_folder: Path, folder: Path, regime: Regime, examples: int) -> None:
    """Puts a base model that is kept into a run's folder, as if trained there just now;
    all processes at the same time.

    A folder that has checkpoints of a base model is left as it is.
    """
    target = checkpoint_folder(folder, BASE)
    missing = processes.is_lead() and not target.exists()
    if not processes.any_process(missing):
        return
    kept = read(base_folder)
    optimizer, steps = regime.optimizer(examples), regime.steps(examples)
    key = jax.random.key(0)
    state, best = initial_state(lambda key: kept.variables, optimizer, key)
    score = jnp.asarray(kept.score, jnp.float32)
    done = state._replace(step=jnp.asarray(steps, jnp.int32))
    finished = (done, Best(score, best.params))
    checkpoints.save(target, steps, finished, seconds=kept.seconds)


def save_variables(folder: Path, variables: PyTree) -> None:
    """Writes variables into a workdir, if they are nested dicts of numeric arrays.

    Of others the structure could not be restored; `load` is then given them anew.
    """
    flat = traverse_util.flatten_dict(variables) if isinstance(variables, dict) else {}
    restored = traverse_util.unflatten_dict(flat)  # without lists and empty dicts
    named = all(isinstance(name, str) for path in flat for name in path)
    same = jax.tree.structure(restored) == jax.tree.structure(variables)
    dtypes = [getattr(leaf, "dtype", None) for leaf in flat.values()]
    # NumPy has neither keys nor bfloat16.
    plain = all(isinstance(x, np.dtype) and x.kind in "biufc" for x in dtypes)
    if named and same and plain:
        file = io.BytesIO()
        arrays: dict[str, Any] = {json.dumps(path): x for path, x in flat.items()}
        np.savez(file, **arrays)
        write_atomically(folder / VARIABLES, file.getvalue())


def read_variables(folder: Path) -> PyTree | None:
    """Returns the variables that a workdir holds; None if there are none."""
    if not (folder / VARIABLES).exists():
        return None
    with np.load(folder / VARIABLES, allow_pickle=False) as stored:
        flat = {tuple(json.loads(name)): stored[name] for name in stored}
    return jax.tree.map(jnp.asarray, traverse_util.unflatten_dict(flat))
