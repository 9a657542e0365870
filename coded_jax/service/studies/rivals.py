"""The rivals of a code on the same workers: no code, copies, a code per convolution."""

from __future__ import annotations

import dataclasses

import jax

from coded_jax.checks import require
from coded_jax.codes import ImageSplit, quorum
from coded_jax.inference import costs
from coded_jax.inference.pipeline import Pipeline
from coded_jax.runs.build import build_pipeline
from coded_jax.runs.coded_model import CodedModel
from coded_jax.runs.config import Config


def uncoded(model: CodedModel) -> CodedModel:
    """Returns the same network without a code, all of whose pieces are waited for.

    It has as many pieces as there are workers or, where it cannot be split so, the most
    below that.

    Raises:
      ValueError: it cannot be split.
    """
    n = model.pipeline.n
    rivals = (_least_work(model, k, 1, "uncoded") for k in range(n, 1, -1))
    found = next(filter(None, rivals), None)
    if found is None:
        raise ValueError(f"k: no split into 2..{n} pieces found, one accepted")
    return found


def replicated(model: CodedModel) -> CodedModel:
    """Returns the same network in so few pieces that each is computed `r + 1` times.

    So, like the code, it survives any r losses, but exactly.
    """
    n, r = model.pipeline.n, model.pipeline.r
    rivals = (
        _least_work(model, k, n - k, "replication") for k in range(n // (r + 1), 0, -1)
    )
    return next(filter(None, rivals))  # the whole image is a piece, too


def per_convolution(
    model: CodedModel, stages: tuple[tuple[int, int], ...]
) -> CodedModel:
    """Returns the same k and r with a linear code, exact where each stage is one
    convolution.

    Raises:
      ValueError: a stage cannot be split into that many pieces.
    """
    pipeline = model.pipeline
    rival = _least_work(model, pipeline.k, pipeline.r, "mds", stages)
    if rival is None:
        raise ValueError(f"mds_stages: {stages} given, k={pipeline.k} is too many")
    return rival


def service_seconds(model: CodedModel, whole: float) -> tuple[float, ...]:
    """Returns the seconds of a piece of each coded stage, on a machine that takes
    `whole` seconds for the whole `F_Conv`: its part of them, by operations."""
    cost = costs.cost_of(model.pipeline, model.frozen, model.image_shape)
    parts = (trip.device_flops / cost.whole_flops for trip in cost.rounds)
    return tuple(whole * part for part in parts)


def work_of(model: CodedModel) -> float:
    """Returns the operations of a worker, as a fraction of those of the whole."""
    cost = costs.cost_of(model.pipeline, model.frozen, model.image_shape)
    return cost.device_flops / cost.whole_flops


def pieces_text(pipeline: Pipeline) -> str:
    """Returns the grid of pieces, and the pieces sent beside them: `4x1 + 2`."""
    grids = {stage.plan.grid for stage in pipeline.stages}
    grid = "x".join(map(str, grids.pop())) if len(grids) == 1 else str(pipeline.k)
    rule = pipeline.stages[0].code.quorum
    beside = len(quorum.sent(rule, pipeline.k, pipeline.n)) - pipeline.k
    return f"{grid} + {beside}" if beside else grid


def _least_work(
    model: CodedModel,
    k: int,
    r: int,
    code: str,
    stages: tuple[tuple[int, int], ...] | None = None,
) -> CodedModel | None:
    """Returns the model with another code and the grid of least work, or None."""
    results, config = model.results, Config.from_json(model.results["config"])
    require("split", config.split, isinstance(config.splitting, ImageSplit), "'image'")
    rivals = []
    for rows in (rows for rows in range(1, k + 1) if k % rows == 0):
        settings = dataclasses.replace(
            config,
            k=k,
            r=r,
            grid=(rows, k // rows),
            stage_grids=None,
            code=code,
            stages=stages or config.stages,
            l=None,
            tried=None,
            baselines=(),
            pattern_weights=(),
        )
        try:
            pipeline = build_pipeline(
                settings,
                model.pipeline.examples,
                results["classes"],
                base=model.pipeline.base,
            )
        except ValueError:  # the features have not so many rows or columns
            continue
        rivals.append(model._replace(pipeline=pipeline))
    if not rivals:
        return None
    best = min(rivals, key=work_of)
    return best._replace(params=best.pipeline.init(jax.random.key(0)))
