"""Flags that name a network whose strategies are compared; nothing is trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from absl import flags

from coded_jax.checks import require, require_sizes
from coded_jax.cli.command_line import call_named, sizes
from coded_jax.latency.cuts import CNN, cnn_of
from coded_jax.models import BASE_MODELS, make_base_model
from coded_jax.report.formatting import size_text
from coded_jax.runs.build import variable_shapes
from coded_jax.runs.config import Config
from coded_jax.types import BaseModel

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
GIVEN_DROP = flags.DEFINE_float(
    "given_drop",
    None,
    "points of accuracy that an answer loses for each coded stage of a learned code, "
    "of linear encoder and cheap decoder, once it has decoded something; without it "
    "only codes of runs are there",
    lower_bound=0,
    upper_bound=100,
)


def cnn_from_flags(runs: Sequence[dict[str, Any]]) -> tuple[str, CNN]:
    """Returns the network that flags or runs name, and its name.

    Args:
      runs: the contents of `results.json` of finished runs; may be none.

    Raises:
      ValueError: none or several are named, or it cannot be made.
    """
    given = sum(map(bool, (BASE_MODEL.value, CNN_FUNCTION.value, runs)))
    accepted = "one of --base_model, --cnn, or finished runs"
    require("network", given, given == 1, accepted)
    accuracy, width = 1.0, BASE_WIDTH.value
    if CNN_FUNCTION.value:
        name = CNN_FUNCTION.value
        values = ("blocks", "variables", "(H, W, C)")
        blocks, variables, lengths = call_named("cnn", name, *values)
        functions = tuple(blocks) if isinstance(blocks, Sequence) else (blocks,)
        height, columns, maps = require_sizes("cnn", lengths, "H", "W", "C")
        head = lambda variables, features: features.mean((1, 2))  # the same for all
        base = BaseModel(lambda key, image, classes: variables, functions, head)
        shape = (height, columns, maps)
    else:
        if runs:
            config = runs[0]["config"]
            height, columns, maps = runs[0]["image_shape"]
            model, width = config["base_model"], config["base_width"]
            accuracy = runs[0]["base"]["test_accuracy"]
        else:
            model = str(BASE_MODEL.value)
            height, columns, maps = sizes("image_shape", IMAGE_SHAPE.value, 3, "HxWxC")
            Config(base_width=width)  # refuses what a run would
        shape = (height, columns, maps)
        wide = "" if width == 1 else f" x {width:g}"
        name = f"{model}{wide}, {size_text(shape[:2])}"
        base = make_base_model(model, width)
        variables = variable_shapes(base, shape, 10)
    drop = None if GIVEN_DROP.value is None else GIVEN_DROP.value / 100
    return name, cnn_of(base, variables, shape, accuracy=accuracy, drop=drop)
