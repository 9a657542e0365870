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
    model, variables = call_named("model", name, "a function", "its variables")
    return model, variables


def call_named(flag: str, name: str, *returned: str) -> tuple[Any, ...]:
    """Calls a function without arguments and returns its values.

    Args:
      flag: that names it.
      name: `module:function`, importable from the current folder.
      returned: the values in words, the second of which are variables.

    Raises:
      ValueError: there is no such function, it fails, or returns something else.
    """
    module, _, function = name.partition(":")
    accepted = f"module:function that returns {' and '.join(returned)}"
    sys.path.insert(0, str(Path.cwd()))
    try:
        values = getattr(importlib.import_module(module), function)()
    except (Exception, SystemExit) as error:  # a module of the user's raises anything
        reason = f"{accepted} accepted ({first_line(error)})"
        raise ValueError(f"{flag}: {name!r} given, {reason}") from error
    fits = isinstance(values, tuple) and len(values) == len(returned)
    leaves = jax.tree.leaves(values[1]) if fits else []
    arrays = all(hasattr(leaf, "shape") and hasattr(leaf, "dtype") for leaf in leaves)
    require(flag, name, fits and arrays, f"{accepted}, arrays or their shapes,")
    return values
