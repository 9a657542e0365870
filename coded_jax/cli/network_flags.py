"""Flags that name a network whose strategies are compared; nothing is trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
from absl import flags

from coded_jax.checks import require, require_sizes
from coded_jax.cli.command_line import integers
from coded_jax.cli.whole_networks import call_named, require_arrays
from coded_jax.codes.config import STAGES
from coded_jax.latency.partitions import Stages
from coded_jax.latency.strategies import CNN, cnn_of
from coded_jax.models import BASE_MODELS, make_base_model
from coded_jax.runs.build import variable_shapes
from coded_jax.runs.config import OWN, Config
from coded_jax.types import BaseModel, PyTree

BASE_MODEL = flags.DEFINE_enum(
    "base_model", None, list(BASE_MODELS), "network; that of the runs if some are given"
)
BASE_WIDTH = flags.DEFINE_float(
    "base_width", 1.0, "channels of each layer, times those of the published network"
)
IMAGE_SHAPE = flags.DEFINE_string("image_shape", "224x224x3", "HxWxC of an image")
CNN_FUNCTION = flags.DEFINE_string(
    "cnn",
    None,
    "module:function of a CNN of your own; it returns its blocks (as of `protect`), "
    "their variables or the shapes of these, and (H, W, C)",
)
STAGES_OF_CODE = flags.DEFINE_string(
    "stages", None, "of learned codes, as 1-4,5-6; several cuts are tried if not given"
)
BASE_ACCURACY = flags.DEFINE_float(
    "base_accuracy", None, "of the network, in %; that of the runs, or 100"
)
GIVEN_DROP = flags.DEFINE_float(
    "given_drop",
    None,
    "points of accuracy that an answer loses for each coded stage of a learned code, "
    "of linear encoder and cheap decoder, once it has decoded something; without it "
    "only codes of runs are there",
)


def cnn_from_flags(runs: Sequence[dict[str, Any]]) -> tuple[str, CNN]:
    """Returns the network that flags or runs name, and its name.

    Args:
      runs: the contents of `results.json` of finished runs; may be none.

    Raises:
      ValueError: none or several are named, or it cannot be made.
    """
    named = [BASE_MODEL.value, CNN_FUNCTION.value, runs[0] if runs else None]
    given = sum(value is not None for value in named)
    accepted = "one of --base_model, --cnn, or finished runs"
    require("network", given, given == 1, accepted)
    drop = GIVEN_DROP.value
    if drop is not None:
        require("given_drop", drop, 0 <= drop <= 100, "0..100")
    if CNN_FUNCTION.value:
        name = CNN_FUNCTION.value
        base, variables, shape = own_cnn(name)
    else:
        name, base, variables, shape = _registered(runs)
    return name, cnn_of(
        base,
        variables,
        shape,
        accuracy=_accuracy(runs),
        drop=None if drop is None else drop / 100,
        stages=_stages(len(base.blocks)),
    )


def _registered(
    runs: Sequence[dict[str, Any]],
) -> tuple[str, BaseModel, PyTree, tuple[int, int, int]]:
    """Returns a network of the registry, that of the runs if there are some: its name
    with its size, itself, shapes of its variables, and `(H, W, C)`."""
    if runs:
        config = runs[0]["config"]
        name, width = config["base_model"], config["base_width"]
        require("runs", name, name != OWN, "of a registered network, or --cnn")
        sizes = runs[0]["image_shape"]
    else:
        name, width = str(BASE_MODEL.value), BASE_WIDTH.value
        Config(base_width=width)  # refuses what a run would
        sizes = integers("image_shape", IMAGE_SHAPE.value.split("x"))
        fits = len(sizes) == 3 and min(sizes) >= 1
        require("image_shape", IMAGE_SHAPE.value, fits, "HxWxC")
    height, columns, channels = sizes
    shape = (height, columns, channels)
    text = f"{name}{f' x {width:g}' if width != 1 else ''}, {height}x{columns}"
    base = make_base_model(name, width)
    return text, base, variable_shapes(base, shape, 10), shape


def _stages(blocks: int) -> Stages | None:
    """Returns the stages of learned codes of a network; None if none are given."""
    text = STAGES_OF_CODE.value
    if text is None:
        return None
    given = GIVEN_DROP.value is not None
    require("stages", text, given, "none without --given_drop")
    try:
        stages = STAGES.parse(text)
    except ValueError:
        stages = ()
    before = [0, *(last for _, last in stages)]
    fits = bool(stages) and all(
        end < first <= last <= blocks
        for end, (first, last) in zip(before, stages, strict=False)
    )
    accepted = f"{STAGES.text}, one after another, in 1..{blocks},"
    require("stages", text, fits, accepted)
    return stages


def _accuracy(runs: Sequence[dict[str, Any]]) -> float:
    value = BASE_ACCURACY.value
    if value is not None:
        require("base_accuracy", value, 0 < value <= 100, "more than 0, up to 100")
        return value / 100
    return runs[0]["base"]["test_accuracy"] if runs else 1.0


def own_cnn(name: str) -> tuple[BaseModel, Any, tuple[int, int, int]]:
    """Returns blocks, variables and image shape that a function of the user's returns.

    Args:
      name: `module:function`, importable from the current folder.

    Raises:
      ValueError: there is no such function, or it returns something else.
    """
    accepted = "blocks, variables and (H, W, C)"
    made = call_named("cnn", name, accepted)
    fits = isinstance(made, tuple) and len(made) == 3
    require("cnn", name, fits, f"a function that returns {accepted}")
    blocks, variables, shape = made
    functions = tuple(blocks) if isinstance(blocks, Sequence) else (blocks,)
    callables = len(functions) > 0 and all(map(callable, functions))
    require("cnn", name, callables, "one whose blocks are functions")
    require_arrays("cnn", name, variables)
    height, width, channels = require_sizes("cnn", shape, "H", "W", "C", least=1)
    base = BaseModel(lambda key, image, classes: variables, functions, _no_head)
    return base, variables, (height, width, channels)


def refuse_beside_runs() -> None:
    """Checks that finished runs alone say what the network and its codes are.

    Raises:
      ValueError: a flag says something of it, too.
    """
    for flag in (
        BASE_MODEL,
        BASE_WIDTH,
        IMAGE_SHAPE,
        CNN_FUNCTION,
        STAGES_OF_CODE,
        BASE_ACCURACY,
        GIVEN_DROP,
    ):
        accepted = "none beside finished runs"
        require(flag.name, flag.value, not flag.present, accepted)


def _no_head(variables: Any, features: jax.Array) -> jax.Array:
    """Stands for the head, which is the same for all strategies."""
    return features.mean((1, 2))
