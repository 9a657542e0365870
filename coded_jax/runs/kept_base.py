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
from coded_jax.runs.config import BaseConfig
from coded_jax.runs.phases import BASE
from coded_jax.runs.workdir import absolute, checkpoint_folder, write_atomically
from coded_jax.types import BaseModel, Dataset, PyTree

VARIABLES = "variables.npz"
RECORD = "base.json"
"""Says how the base model was trained, and what it reaches."""


def is_kept(folder: Path) -> bool:
    """Returns whether a folder has a base model of `keep_base.py`, not checkpoints."""
    return (folder / RECORD).exists()


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
        widened = lambda x: x.astype(jnp.float32) if x.dtype == jnp.float16 else x
        variables = jax.tree.map(widened, read_variables(folder))
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


def take(base_folder: Path, folder: Path) -> None:
    """Copies a base model that is kept into a run's folder, which is then all that the
    run needs; all processes at the same time."""

    def copy() -> None:
        for name in (VARIABLES, RECORD):  # the record last: it says that both are there
            write_atomically(folder / name, (base_folder / name).read_bytes())

    processes.by_lead(copy)


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
