r"""Shows how an experiment's images are split: a table, and a picture of the pieces.

    python -m coded_jax plan --flagfile=table5_k4_r2.flags
    python -m coded_jax plan --base_model=vgg16 --stages=1-2,3-4 --k=4 --r=2 \
        --image_shape=32x32x3 --picture=pieces.png

It takes the flags and flagfiles of `run`. Nothing is trained. Of a whole network, as a
function or one of `keras.applications`, it finds the stages itself:

    python -m coded_jax plan --model=keras:MobileNetV2 --image_shape=224x224x3 \
        --k=4 --r=2
    python -m coded_jax plan --model=my_module:my_function --image_shape=64x64x1
"""

from __future__ import annotations

import math
import time

import jax
import numpy as np
from absl import flags
from rich.console import Console

from coded_jax.checks import require
from coded_jax.cli import setting_flags
from coded_jax.cli.command_line import command
from coded_jax.cli.experiment_flags import config_from_flags
from coded_jax.cli.image_flags import example_from_flags
from coded_jax.cli.whole_networks import whole_network
from coded_jax.codes import ConvolutionSplit, GroupSplit
from coded_jax.inference import costs
from coded_jax.inference.rates import Rates
from coded_jax.inference.stages import compute
from coded_jax.report import plan_picture, plan_table
from coded_jax.runs import build
from coded_jax.runs.config import Config
from coded_jax.splitting import SplitPlan
from coded_jax.staging import planning
from coded_jax.types import apart

MODEL = flags.DEFINE_string(
    "model",
    None,
    "whole network whose stages are to be found: keras:NAME of keras.applications; or "
    "module:function of your own, which returns (variables, images) -> logits and the "
    "variables or their shapes",
)
MOST_ROUNDS = flags.DEFINE_integer(
    "most_rounds", planning.MOST_ROUNDS, "of a chain, with --model", lower_bound=1
)
LEAST_CODED = flags.DEFINE_float(
    "least_coded",
    None,
    "part of the network's operations that must be coded, with --model; nine tenths of "
    "what can be coded at most if not given",
)
MOST_DEVICE = flags.DEFINE_float(
    "most_device",
    math.inf,
    "operations of the busiest device at most, over the network's, with --model",
)
PICTURE = flags.DEFINE_string("picture", "plan.png", "file of the picture; '' for none")
PARTS = (
    "blocks are parts of the network here: the convolutions of a round, and what the "
    "client computes between them"
)
setting_flags.define(Rates)


@command()
def main(argv: list[str]) -> None:
    """Prints the plan of the flags, and draws its pieces."""
    config, console = config_from_flags(), Console(highlight=False)
    if MODEL.value is not None:
        shown = _plan_model(console, config, MODEL.value)
    else:
        shown = _plan_code(console, config)
    if shown is None or not PICTURE.value:
        return
    try:
        plan_picture.draw(PICTURE.value, *shown)
    except (ImportError, OSError, ValueError) as error:
        raise ValueError(f"picture: {error}") from error
    console.print(f"the pieces over an image: {PICTURE.value}")


def _plan_code(console: Console, config: Config) -> tuple[np.ndarray, SplitPlan] | None:
    """Prints the stages of a code, and returns an image and the plan by which the first
    one splits it; None where it splits no image."""
    accepted = "'image': a group is not split, each device computes a whole image"
    is_group = isinstance(config.splitting, GroupSplit)
    require("split", config.split, not is_group, accepted)
    image, classes, _ = example_from_flags()
    channels = image.shape[-1]
    pipeline = build.build_pipeline(
        config, image.shape, classes, (0.5,) * channels, (0.25,) * channels
    )
    variables = build.variable_shapes(pipeline.base, image.shape, classes)
    stages = costs.stage_costs(pipeline, variables, image.shape)
    cost = costs.cost_of(pipeline, variables, image.shape)
    console.print(plan_table.table(stages, cost, config.r))
    plan = pipeline.stages[0].plan
    if not isinstance(config.splitting, ConvolutionSplit):
        return image, plan
    console.print(PARTS)
    if config.stages and config.stages[0][0] > 1:
        return None  # what the first convolution reads is no image
    # As the client pads it for the first convolution.
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), variables)
    before = pipeline.stages[0].before
    x, *_ = apart(compute(before, zeros, image[None].astype("float32")))
    return np.asarray(x[0]).astype(np.uint8), plan


def _plan_model(
    console: Console, config: Config, name: str
) -> tuple[np.ndarray, SplitPlan] | None:
    """Prints the stages that are found for a whole network; see `_plan_code`."""
    defaults = Config()
    for flag in ("base_model", "split", "code", "stages", "grid", "stage_grids"):
        value = getattr(config, flag)
        require(flag, value, value == getattr(defaults, flag), "none with --model")
    image, rates = example_from_flags().image, Rates(**setting_flags.read(Rates))
    model, variables = whole_network(name, image.shape)
    begun = time.perf_counter()
    plan = planning.plan_stages(
        model,
        variables,
        image.shape,
        config.k,
        config.r,
        rates=rates,
        most_rounds=MOST_ROUNDS.value,
        least_coded=LEAST_CODED.value,
        most_device=MOST_DEVICE.value,
    )
    seconds = time.perf_counter() - begun
    console.print(plan_table.proposal(plan, rates))
    console.print(f"planned in {seconds:.1f} s")
    (rows, columns, channels), first = next(
        (part.input_shape, part.plan) for part in plan.parts if part.plan is not None
    )
    if channels != image.shape[-1]:
        return None
    # Perhaps padded, or cropped, before the first stage.
    more = [(0, max(0, rows - image.shape[0])), (0, max(0, columns - image.shape[1]))]
    return np.pad(image, [*more, (0, 0)])[:rows, :columns], first
