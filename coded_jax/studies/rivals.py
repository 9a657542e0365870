"""What a code is compared with on the same workers: no code, and copies."""

from __future__ import annotations

import dataclasses

import jax

from coded_jax.inference import costs
from coded_jax.inference.pipeline import Pipeline
from coded_jax.runs.build import build_pipeline
from coded_jax.runs.coded_model import CodedModel
from coded_jax.runs.config import Config


def uncoded(model: CodedModel) -> CodedModel:
    """The same network without a code, in as many pieces as there are workers or, where
    it cannot be split so, in the most below that. All pieces are waited for."""
    n = model.pipeline.n
    for k in range(n, 1, -1):
        if found := _split(model, k, 1, "uncoded"):
            return found
    raise ValueError(f"k: no split into 2..{n} pieces found, one accepted")


def replicated(model: CodedModel) -> CodedModel:
    """The same network in as few pieces that every one is computed `r + 1` times: so,
    like the code, it survives any r losses, but exactly."""
    n, r = model.pipeline.n, model.pipeline.r
    for k in range(n // (r + 1), 0, -1):
        if found := _split(model, k, n - k, "replication"):
            return found
    raise AssertionError("the whole image is a piece")


def layers(model: CodedModel, stages: tuple[tuple[int, int], ...]) -> CodedModel:
    """The same k and r with a linear code, exact where each stage is a convolution.

    Raises:
      ValueError: a stage cannot be split into that many pieces.
    """
    pipeline = model.pipeline
    found = _split(model, pipeline.k, pipeline.r, "mds", stages)
    if found is None:
        raise ValueError(f"mds_stages: {stages} given, k={pipeline.k} is too many")
    return found


def service(model: CodedModel, whole: float) -> tuple[float, ...]:
    """Seconds for a piece of every coded stage, where a machine takes `whole` for all
    coded stages of a whole image."""
    found = costs.stage_costs(model.pipeline, model.frozen, model.image_shape)
    coded = [(cost.flops, cost.plan.work_fraction) for cost in found if cost.plan]
    total = sum(flops for flops, _ in coded)
    return tuple(whole * flops / total * fraction for flops, fraction in coded)


def work_of(model: CodedModel) -> float:
    """What a worker computes, over the whole of the coded stages."""
    found = costs.stage_costs(model.pipeline, model.frozen, model.image_shape)
    return costs.work_fraction(found)


def _split(
    model: CodedModel,
    k: int,
    r: int,
    code: str,
    stages: tuple[tuple[int, int], ...] | None = None,
) -> CodedModel | None:
    """With the grid of least work; None if there is none."""
    config = Config.from_json(model.results["config"])
    if config.split != "image":
        raise ValueError(f"split: {config.split!r} given, 'image' accepted")
    found = []
    for rows in range(1, k + 1):
        if k % rows:
            continue
        settings = dataclasses.replace(
            config,
            k=k,
            r=r,
            grid=(rows, k // rows),
            code=code,
            stages=stages or config.stages,
            l=None,
            tried=None,
            baselines=(),
            pattern_weights=(),
        )
        try:
            found.append(_built(model, settings))
        except ValueError:  # the features have not so many rows or columns
            continue
    least = lambda pipeline: work_of(model._replace(pipeline=pipeline))
    if not found:
        return None
    best = min(found, key=least)
    return model._replace(pipeline=best, params=best.init(jax.random.key(0)))


def _built(model: CodedModel, config: Config) -> Pipeline:
    results, statistics = model.results, model.results["normalisation"]
    return build_pipeline(
        config,
        tuple(results["image_shape"]),
        results["classes"],
        tuple(statistics["mean"]),
        tuple(statistics["std"]),
        base=model.pipeline.base,
    )


def pieces_text(pipeline: Pipeline) -> str:
    """As `2x2` pieces and what is sent beside them, `4x1 + 2`."""
    grids = {coding.plan.grid for coding in pipeline.codings}
    grid = "x".join(map(str, grids.pop())) if len(grids) == 1 else str(pipeline.k)
    blank = all(coding.code.blank for coding in pipeline.codings)
    return grid if blank else f"{grid} + {pipeline.r}"
