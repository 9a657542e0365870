"""Variables of a user's CNN, kept in the workdir of its run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from coded_jax.types import PyTree

VARIABLES = "variables.npz"
"""The file in the workdir."""


def save_variables(folder: Path, variables: PyTree) -> None:
    """Writes variables into a workdir, if they are nested dicts of numeric arrays.

    Of others the structure could not be restored; `load` is then given them anew.
    """
    arrays = dict(_by_path(variables, ()))
    if any(array is None for array in arrays.values()):
        return
    unfinished = folder / f"{VARIABLES}.tmp"
    with open(unfinished, "wb") as file:
        np.savez(file, allow_pickle=False, **arrays)  # type: ignore
    unfinished.replace(folder / VARIABLES)


def read_variables(folder: Path) -> PyTree | None:
    """Returns the variables that a workdir holds; None if there are none."""
    if not (folder / VARIABLES).exists():
        return None
    variables: dict[str, Any] = {}
    with np.load(folder / VARIABLES, allow_pickle=False) as stored:
        for path in stored.files:
            *outer, name = json.loads(path)
            node = variables
            for key in outer:
                node = node.setdefault(key, {})
            node[name] = jnp.asarray(stored[path])
    return variables


def _by_path(tree: PyTree, path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    """Yields `(path as JSON, array)`, with None for what cannot be stored."""
    if type(tree) is dict and tree and all(type(key) is str for key in tree):
        for key, value in tree.items():
            yield from _by_path(value, (*path, key))
        return
    leaf: Any = tree
    stored = path and isinstance(leaf, jax.Array) and _is_plain(leaf.dtype)
    yield json.dumps(path), np.asarray(leaf) if stored else None


def _is_plain(dtype: Any) -> bool:
    """Returns whether NumPy itself has the type; it has neither keys nor bfloat16."""
    return not jnp.issubdtype(dtype, jax.dtypes.extended) and dtype.kind in "biufc"
