"""Whole networks that a flag names: of `keras.applications`, or of the user's own."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import jax

from coded_jax.checks import first_line, require
from coded_jax.models.keras_networks import keras_application
from coded_jax.types import Block, PyTree

KERAS = "keras:"


def whole_network(name: str, image_shape: tuple[int, int, int]) -> tuple[Block, PyTree]:
    """Returns a network, `(variables, images) -> logits`, and its variables or shapes.

    Args:
      name: `keras:NAME`, or `module:function`, importable from the current folder; the
        function takes nothing and returns both.
      image_shape: `(H, W, C)`.

    Raises:
      ValueError: there is no such network.
      ImportError: Keras is missing.
    """
    if name.startswith(KERAS):
        return keras_application(name.removeprefix(KERAS), image_shape)
    accepted = "a function and its variables"
    made = call_named("model", name, accepted)
    fits = isinstance(made, tuple) and len(made) == 2 and callable(made[0])
    require("model", name, fits, f"a function that returns {accepted}")
    model, variables = made
    require_arrays("model", name, variables)
    return model, variables


def call_named(flag: str, name: str, accepted: str) -> Any:
    """Calls a function without arguments and returns its value.

    Args:
      flag: that names it.
      name: `module:function`, importable from the current folder.
      accepted: what it should return.

    Raises:
      ValueError: there is no such function, or it fails.
    """
    module, _, function = name.partition(":")
    require(flag, name, bool(module and function), "module:function")
    sys.path.insert(0, str(Path.cwd()))
    try:
        return getattr(importlib.import_module(module), function)()
    except (Exception, SystemExit) as error:  # a module of the user's raises anything
        raise ValueError(
            f"{flag}: {name!r} given, a function that returns {accepted} accepted "
            f"({first_line(error)})"
        ) from error


def require_arrays(flag: str, name: str, variables: PyTree) -> None:
    """Checks that variables are arrays or shapes.

    Raises:
      ValueError: a leaf is neither.
    """
    leaves = jax.tree.leaves(variables)
    arrays = all(hasattr(leaf, "shape") and hasattr(leaf, "dtype") for leaf in leaves)
    require(flag, name, arrays, "one whose variables are arrays or their shapes")
