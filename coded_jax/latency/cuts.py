"""Cuts of a CNN into stages, or of its convolutions, that are worth a comparison.

A longer stage is one round for more blocks, and its pieces overlap more. So there are
several cuts, and none that is the best for all links.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from coded_jax.checks import first_line, require_form
from coded_jax.inference.costs import Cost, cost_of
from coded_jax.inference.pipeline import Examples, Pipeline
from coded_jax.runs.build import build_pipeline
from coded_jax.runs.config import OWN, Config
from coded_jax.splitting.convolutions import rounded_down, spared_parts
from coded_jax.splitting.plan import make_plan
from coded_jax.types import BaseModel, PyTree, chain

Stages = tuple[tuple[int, int], ...]

OVERHEADS = (0.25, 0.75, 2.0)
"""Limits what the pieces of a stage compute twice, as a part of the stage."""
SENT = (1.0, 3 / 4, 1 / 2, 1 / 3, 1 / 4)
"""Gives how many of a network's convolutions are cut by themselves, those that spare a
device the most; each is compared."""


class CNN(NamedTuple):
    """A CNN whose strategies are compared; no values of its variables are needed.

    Attributes:
      base: its blocks.
      variables: shapes and dtypes, as of `runs.build.variable_shapes`.
      image_shape: `(H, W, C)`.
      accuracy: of the network itself, in [0, 1].
      drop: accuracy that an answer loses in each coded stage where a learned code
        decodes something; None for no learned codes but those of runs.
    """

    base: BaseModel
    variables: PyTree
    image_shape: tuple[int, int, int]
    accuracy: float = 1.0
    drop: float | None = None


def cnn_of(
    base: BaseModel,
    variables: PyTree,
    image_shape: tuple[int, int, int],
    **fields: Any,
) -> CNN:
    """Returns a CNN whose blocks are traced once for each size, not for each strategy.

    Args:
      base: its blocks.
      variables: arrays or shapes (`jax.ShapeDtypeStruct`).
      image_shape: `(H, W, C)`.
      fields: the others of `CNN`.

    Raises:
      ValueError: the blocks do not take such images.
    """
    shapes = jax.eval_shape(lambda leaves: leaves, variables)
    zeros = lambda leaf: jnp.zeros(leaf.shape, leaf.dtype)
    traced = base._replace(
        init=lambda key, image, classes: jax.tree.map(zeros, shapes),
        blocks=tuple(map(jax.jit, base.blocks)),
    )
    cnn = CNN(traced, shapes, image_shape, **fields)
    try:
        results = _results(cnn)
    except Exception as error:  # a function of the user's raises anything
        raise ValueError(
            f"image_shape: {tuple(image_shape)} given, one that the CNN takes accepted "
            f"({first_line(error)})"
        ) from error
    is_map = len(getattr(results[-1], "shape", ())) == 4 and results[-1].size > 0
    require_form("blocks", results[-1], is_map, "features [B, M*, M'*, D]")
    return cnn


def _results(cnn: CNN) -> list[Any]:
    """Returns the shapes of an image and of what each block makes of it."""
    results = [jax.ShapeDtypeStruct((1, *cnn.image_shape), jnp.float32)]
    for block in cnn.base.blocks:
        results.append(jax.eval_shape(block, cnn.variables, results[-1]))
    return results


class Cut(NamedTuple):
    """An image, or the inputs of convolutions, cut into pieces.

    Attributes:
      pieces: in words.
      cost: of a code of these pieces.
      settings: of `Config`.
    """

    pieces: str
    cost: Cost
    settings: Mapping[str, Any]

    @property
    def merits(self) -> tuple[float, ...]:
        """Returns work and bytes of a device, rounds, and work of the client."""
        moved = self.cost.total.bytes_in + self.cost.total.bytes_out
        rounds = len(self.cost.rounds)
        return self.cost.device_flops, moved, rounds, self.cost.client_total


def pieces_text(grid: Sequence[int], stages: Sequence[Sequence[int]]) -> str:
    """Returns pieces and stages, if there are any, as `2x2, stages 1-4 5-6`."""
    pieces = f"{grid[0]}x{grid[1]}"
    if not stages:
        return pieces
    blocks = " ".join(f"{a}-{b}" if a < b else f"{a}" for a, b in stages)
    return f"{pieces}, stages {blocks}"


def of_stages(cnn: CNN, k: int, r: int, **settings: Any) -> Iterator[Cut]:
    """Yields cuts into stages of k pieces.

    Args:
      cnn: the network.
      k, r: data and parity pieces.
      settings: of the code, as of `Config`.
    """
    grid = grid_of(k)
    for stages in partitions(cnn, grid):
        sizes = {"k": k, "r": r, "grid": grid, "stages": stages}
        try:
            yield _cut(cnn, pieces_text(grid, stages), **settings, **sizes)
        except ValueError:  # the features have not so many rows or columns
            continue


def of_convolutions(cnn: CNN, k: int, r: int, **settings: Any) -> Iterator[Cut]:
    """Yields the cut of every convolution, and those of the large ones alone; none if
    no convolution has k pieces. See `of_stages`."""
    spared = spared_parts(cnn.base.f_conv, cnn.variables, cnn.image_shape, k)
    if not spared:
        return
    by_rounds = {len(spared): 0.0}
    for part in SENT[1:]:
        limit = rounded_down(spared[math.ceil(part * len(spared)) - 1])
        by_rounds.setdefault(sum(x >= limit for x in spared), limit)
    for limit in by_rounds.values():
        sizes = {"k": k, "r": r, "split": "convolution", "least_spared": limit}
        cut = _cut(cnn, "every convolution", **settings, **sizes)
        rounds = len(cut.cost.rounds)
        some = f"{rounds} round{'s' if rounds > 1 else ''} (least_spared={limit:g})"
        yield cut._replace(pieces=some) if limit else cut


def _cut(cnn: CNN, pieces: str, **settings: Any) -> Cut:
    """Returns the cut of a code on a network whose images come as bytes."""
    pipeline = pipeline_of(cnn, settings)
    return Cut(pieces, cost_of(pipeline, cnn.variables, cnn.image_shape), settings)


def pipeline_of(cnn: CNN, settings: Mapping[str, Any]) -> Pipeline:
    """Builds the pipeline of a network with ten classes.

    Args:
      cnn: the network.
      settings: of `Config`, for its pieces and their code.

    Raises:
      ValueError: the network cannot be split so.
    """
    config = Config(dataset=OWN, base_model=OWN, baselines=(), **settings)
    middle = (0.5,) * cnn.image_shape[-1]
    examples = Examples(cnn.image_shape, middle, middle)
    return build_pipeline(config, examples, 10, base=cnn.base)


def undominated(cuts: Sequence[Cut]) -> list[Cut]:
    """Returns the cuts but those that are worse than another in all of work, bytes,
    rounds and the client's work."""
    merits = np.array([cut.merits for cut in cuts]).reshape(-1, 4)
    no_more = (merits[:, None] <= merits).all(axis=-1)  # i than j
    dominated = (no_more & ~no_more.T).any(axis=0)
    return [cuts[i] for i in np.flatnonzero(~dominated).tolist()]


def partitions(cnn: CNN, grid: tuple[int, int]) -> list[Stages]:
    """Returns cuts into stages, of which each can be split by `grid`.

    A cut begins a stage at the first block that can be split, ends it before the block
    with which its pieces would compute more of it twice than one of `OVERHEADS`, and
    goes on so. Each is there with all its stages and with the first alone; blocks in no
    stage are computed whole by the client.

    Args:
      cnn: the network.
      grid: pieces along rows and columns.

    Returns:
      Stages by their first and last block, counted from 1; each cut once, none without
      stages.
    """
    results, blocks = _results(cnn), len(cnn.base.blocks)

    @functools.cache
    def overhead(first: int, last: int) -> float:
        f_conv = chain(cnn.base.blocks[first - 1 : last])
        image_shape = results[first - 1].shape[1:]
        try:
            plan = make_plan(f_conv, cnn.variables, image_shape, grid)
        except ValueError:  # too few rows, or a piece is the whole image
            return math.inf
        return plan.work_fraction * plan.k - 1

    def cut(most: float) -> Stages:
        stages, first = [], 1
        while first <= blocks:
            last = first
            while last <= blocks and overhead(first, last) <= most:
                last += 1
            if last > first:
                stages.append((first, last - 1))
            first = max(last, first + 1)
        return tuple(stages)

    cuts = [stages for most in OVERHEADS for stages in (cut(most), cut(most)[:1])]
    return [stages for stages in dict.fromkeys(cuts) if stages]


def grid_of(k: int) -> tuple[int, int]:
    """Returns the rows and columns of k pieces that are most alike, as (3, 2) of 6."""
    columns = max(i for i in range(1, math.isqrt(k) + 1) if k % i == 0)
    return k // columns, columns
