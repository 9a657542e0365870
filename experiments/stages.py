r"""Plans the stages of a known network, and verifies and times what comes out.

    python experiments/stages.py --model=keras:ResNet50 --image_shape=224x224x3 \
        --k=4 --r=2 --output=experiments/results/stages/resnet50_k4_r2.json

Weights are drawn; no code is trained. Written are the chain of stages that takes least
time within the limits that are wanted, without one that no chain meets; the largest
error of the features that the pieces give, over the largest feature; and the seconds of
the pieces, of cutting and of merging them.
"""

from __future__ import annotations

import functools
import json
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from rich.console import Console

from coded_jax.cli import setting_flags
from coded_jax.cli.command_line import command, image_shape_of, origin, run
from coded_jax.cli.whole_networks import whole_network
from coded_jax.inference.rates import Rates
from coded_jax.report import plan_table
from coded_jax.runs import workdir
from coded_jax.splitting import cut, merge, split
from coded_jax.staging.planning import MOST_ROUNDS, StagePlan, plan_stages
from coded_jax.types import Block, PyTree, apart, together

MODEL = flags.DEFINE_string("model", None, "see `plan.py`", required=True)
IMAGE_SHAPE = flags.DEFINE_string("image_shape", "224x224x3", "HxWxC")
K = flags.DEFINE_integer("k", 2, "data pieces")
R = flags.DEFINE_integer("r", 1, "parity pieces")
WANTED = flags.DEFINE_float("wanted", 0.75, "part of the operations to be coded")
DEVICE = flags.DEFINE_float("device", 0.65, "operations of a device that are wanted")
MOST = flags.DEFINE_integer("most_rounds", MOST_ROUNDS, "of a chain")
BATCH = flags.DEFINE_integer("batch", 4, "images that are computed")
TIMES = flags.DEFINE_integer("times", 5, "of a measurement, of which the least counts")
setting_flags.define(Rates)
OUTPUT = flags.DEFINE_string("output", None, "JSON file", required=True)


@command()
def main(argv: list[str]) -> None:
    console, started = Console(highlight=False, soft_wrap=True), time.perf_counter()
    shape, rates = image_shape_of(IMAGE_SHAPE.value), Rates(**setting_flags.read(Rates))
    model, variables = whole_network(MODEL.value, shape)
    built = time.perf_counter()
    plan, met = plan_for(model, variables, shape, rates)
    planned = time.perf_counter()
    console.print(plan_table.proposal(plan, rates))
    images = jax.random.normal(jax.random.key(0), (BATCH.value, *shape))
    measured = time_plan(plan, drawn(plan.variables), images)
    seconds = {"build": built - started, "plan": planned - built}
    seconds |= measured.pop("seconds")
    seconds["total"] = time.perf_counter() - started
    content: dict[str, Any] = {
        **origin(),
        "model": MODEL.value,
        "image_shape": shape,
        "k": K.value,
        "r": R.value,
        "limits": {"least_coded": WANTED.value, "most_device": DEVICE.value},
        "met": met,
        "most_rounds": MOST.value,
        "blocks": [cost.blocks for cost in plan.parts if cost.plan],
        "grids": plan.grids,
        "coded": plan.chain.coded,
        "cost": plan.cost.to_json(),
        "milliseconds": 1e3 * plan.chain.seconds,
        "obstacles": plan.obstacles,
        "timing": {"seconds": seconds},
        **measured,
    }
    path = Path(OUTPUT.value)
    workdir.make_folder(path.parent, "output")
    workdir.write_atomically(path, json.dumps(content, indent=1, default=float) + "\n")
    shown = {x: content[x] for x in ("timing", "largest_error", "logits_error")}
    console.print(json.dumps(shown))


def plan_for(
    model: Block, variables: PyTree, shape: tuple[int, int, int], rates: Rates
) -> tuple[StagePlan, dict[str, bool]]:
    """Returns stages with as much coded as is wanted, and as little work of a device,
    or without a limit that nothing meets; and whether each limit is met."""
    limits = {"least_coded": WANTED.value, "most_device": DEVICE.value}
    met = dict.fromkeys(limits, True)
    while True:
        own = {name: value for name, value in limits.items() if met[name]}
        try:
            plan = plan_stages(
                model,
                variables,
                shape,
                K.value,
                R.value,
                rates=rates,
                most_rounds=MOST.value,
                **own,
            )
        except ValueError as error:
            name = str(error).partition(":")[0]
            if name not in own:
                raise
            met[name] = False
        else:
            return plan, met


def drawn(variables: PyTree) -> PyTree:
    """Returns numbers of such shapes, by which features neither vanish nor explode."""
    rng = np.random.default_rng(0)

    def draw(path: Any, leaf: Any) -> jax.Array:
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return jnp.zeros(leaf.shape, leaf.dtype)
        if len(leaf.shape) < 2:  # scales and variances of a norm among them
            return jnp.asarray(0.5 + rng.random(leaf.shape), leaf.dtype)
        fan_in = np.prod(leaf.shape[:-1])
        values = rng.normal(size=leaf.shape, scale=(2 / fan_in) ** 0.5)
        return jnp.asarray(values, leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, variables)


def time_plan(plan: StagePlan, variables: PyTree, images: jax.Array) -> dict[str, Any]:
    """Returns the largest errors of the merged features and of the logits, and seconds.

    Returns:
      `largest_error` and `logits_error`, each over the largest value; and `seconds`, of
      all coded stages: of the `pieces`, one after the other, of cutting them (`split`)
      and of joining what they give (`merge`).
    """
    plans = {cost.blocks[0]: cost.plan for cost in plan.parts if cost.plan}
    state, whole, errors = images, images, []
    seconds = dict.fromkeys(("pieces", "split", "merge"), 0.0)
    for number, block in enumerate(plan.base.blocks, start=1):
        run_block, own = jax.jit(block), plans.get(number)
        exact = run_block(variables, whole)
        if own is None:
            state, whole = run_block(variables, state), exact
            continue
        x, kept = apart(state)
        split_all = jax.jit(functools.partial(split, own))
        merge_all = jax.jit(lambda y, own=own: merge(own, cut(own, y)))
        pieces = split_all(x)
        outputs = jnp.stack([run_block(variables, piece) for piece in pieces])
        merged = merge_all(outputs)
        # Of the same input: the errors of the stages before are not counted again.
        same = run_block(variables, x)
        errors.append(float(jnp.abs(merged - same).max() / jnp.abs(same).max()))
        seconds["pieces"] += own.k * _least_seconds(run_block, variables, pieces[0])
        seconds["split"] += _least_seconds(split_all, x)
        seconds["merge"] += _least_seconds(merge_all, outputs)
        state, whole = together(merged, kept), exact
    head = jax.jit(plan.base.head)
    logits, expected = head(variables, state), head(variables, whole)
    scale = jnp.abs(expected).max()
    return {
        "largest_error": max(errors),
        "logits_error": float(jnp.abs(logits - expected).max() / scale),
        "seconds": seconds,
    }


def _least_seconds(f: Any, *args: Any) -> float:
    """Returns the seconds of the fastest of some calls, the first one left out."""
    jax.block_until_ready(f(*args))
    times = []
    for _ in range(TIMES.value):
        begun = time.perf_counter()
        jax.block_until_ready(f(*args))
        times.append(time.perf_counter() - begun)
    return min(times)


if __name__ == "__main__":
    run(main)
