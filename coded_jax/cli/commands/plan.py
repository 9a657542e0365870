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

import numpy as np
from absl import flags
from rich.console import Console

from coded_jax.checks import require
from coded_jax.cli import setting_flags
from coded_jax.cli.command_line import call_named, command
from coded_jax.cli.experiment_flags import config_from_flags
from coded_jax.cli.image_flags import example_from_flags
from coded_jax.inference import costs
from coded_jax.inference.pipeline import Examples
from coded_jax.inference.rates import Rates
from coded_jax.models.keras_networks import keras_application
from coded_jax.report import plan_view
from coded_jax.runs import build
from coded_jax.runs.config import Config
from coded_jax.splitting import Plan, SplitPlan
from coded_jax.staging import planning

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
    image, classes, _ = example_from_flags()
    if MODEL.value is None:
        plan = _plan_code(console, config, image.shape, classes)
    else:
        plan = _plan_model(console, config, image.shape)
    if plan.channels != image.shape[-1] or not PICTURE.value:
        return  # what the first coded stage reads is no image
    # Perhaps padded, or cropped, before the first stage.
    sizes = image.shape[:2]
    if isinstance(plan, SplitPlan):
        sizes = plan.rows.size, plan.columns.size
    more = [(0, max(0, a - b)) for a, b in zip(sizes, image.shape, strict=False)]
    shown = np.pad(image, [*more, (0, 0)])[: sizes[0], : sizes[1]]
    plan_view.draw(PICTURE.value, shown, plan)
    console.print(f"the pieces over an image: {PICTURE.value}")


def _plan_code(
    console: Console, config: Config, shape: tuple[int, int, int], classes: int
) -> Plan:
    """Prints the stages of a code, and returns the plan of the first one."""
    accepted = "'image': a group is not split, each device computes a whole image"
    require("split", config.split, config.split != "group", accepted)
    mean, std = (0.5,) * shape[-1], (0.25,) * shape[-1]
    pipeline = build.build_pipeline(config, Examples(shape, mean, std), classes)
    variables = build.variable_shapes(pipeline.base, shape, classes)
    stages = costs.stage_costs(pipeline, variables, shape)
    cost = costs.cost_of(pipeline, variables, shape)
    console.print(plan_view.table(stages, cost, config.r))
    if config.split == "convolution":
        console.print(PARTS)
    return pipeline.stages[0].plan


def _plan_model(console: Console, config: Config, shape: tuple[int, int, int]) -> Plan:
    """Prints the stages that are found for a whole network; see `_plan_code`."""
    defaults = Config()
    for flag in ("base_model", "split", "code", "stages", "grid", "stage_grids"):
        value = getattr(config, flag)
        require(flag, value, value == getattr(defaults, flag), "none with --model")
    rates, name = Rates(**setting_flags.read(Rates)), str(MODEL.value)
    if name.startswith("keras:"):
        model, variables = keras_application(name.removeprefix("keras:"), shape)
    else:
        model, variables = call_named("model", name, "a function", "its variables")
    begun = time.perf_counter()
    plan = planning.plan_stages(
        model,
        variables,
        shape,
        config.k,
        config.r,
        rates=rates,
        most_rounds=MOST_ROUNDS.value,
        least_coded=LEAST_CODED.value,
        most_device=MOST_DEVICE.value,
    )
    seconds = time.perf_counter() - begun
    console.print(plan_view.proposal(plan, rates))
    console.print(f"planned in {seconds:.1f} s")
    return next(part.plan for part in plan.parts if part.plan is not None)
