"""Strategies on the same workers: a code, and its rivals.

These are no code, copies, and a code of every convolution.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax

from coded_jax.codes import quorum
from coded_jax.inference.costs import Cost, cost_of
from coded_jax.runs.build import build_pipeline
from coded_jax.runs.coded_model import CodedModel
from coded_jax.runs.config import Config
from coded_jax.service.faults import Faults
from coded_jax.service.pool import Pool
from coded_jax.service.studies.pace import PacedFirstK


class ServedStrategy(NamedTuple):
    """A strategy as workers are used for it.

    Attributes:
      model: with its split and its code.
      cost: of an inference of one image.
      hedge_after: seconds, see `ServeConfig`.
      client: seconds that the client is to take for the whole `F_Conv`, by which it is
        slowed as the workers are; 0 for one that is as fast as this machine.
    """

    model: CodedModel
    cost: Cost
    hedge_after: float | None = None
    client: float = 0.0

    @property
    def hedges(self) -> tuple[float, ...]:
        """Returns `hedge_after` for each round; nothing without."""
        late = self.hedge_after
        return () if late is None else (late,) * len(self.cost.rounds)

    @property
    def sent_beside(self) -> int:
        """Returns the number of pieces that are sent beside the k."""
        pipeline = self.model.pipeline
        rule = pipeline.stages[0].code.quorum
        return len(quorum.sent(rule, pipeline.k, pipeline.n)) - pipeline.k

    def engine(self, pool: Pool) -> PacedFirstK:
        """Returns the engine that uses a pool so."""
        return PacedFirstK(self.model, pool, self.cost, self.client, self.hedges)

    def at_pace(self, faults: Faults, seconds: float) -> Faults:
        """Returns the faults of workers that take so many seconds for the whole
        `F_Conv`, and their part of them for a piece."""
        per_flop = seconds / self.cost.whole_flops
        own = tuple(per_flop * trip.device_flops for trip in self.cost.rounds)
        return dataclasses.replace(faults, service=own)

    def plan(self) -> dict[str, Any]:
        """Returns its `pieces`, the grid and what is sent beside them as `4x1 + 2`, and
        the `work` of a worker, as a fraction of the whole."""
        pipeline, beside = self.model.pipeline, self.sent_beside
        grids = {stage.plan.grid for stage in pipeline.stages}
        grid = "x".join(map(str, grids.pop())) if len(grids) == 1 else str(pipeline.k)
        return {
            "pieces": f"{grid} + {beside}" if beside else grid,
            "work": self.cost.device_flops / self.cost.whole_flops,
        }


def coded(model: CodedModel) -> ServedStrategy:
    """Returns the strategy of a model with its own code."""
    cost = cost_of(model.pipeline, model.frozen, model.image_shape)
    return ServedStrategy(model, cost)


def uncoded(model: CodedModel) -> ServedStrategy:
    """Returns the same network without a code, all of whose pieces are waited for.

    It has as many pieces as there are workers or, where it cannot be split so, the most
    below that.

    Raises:
      ValueError: it cannot be split.
    """
    sizes = [(k, 1) for k in range(model.pipeline.n, 1, -1)]
    return _least_work(model, sizes, code="uncoded")


def replicated(model: CodedModel) -> ServedStrategy:
    """Returns the same network in so few pieces that each is computed `r + 1` times.

    So, like the code, it survives any r losses, but exactly.
    """
    n, r = model.pipeline.n, model.pipeline.r
    sizes = [(k, n - k) for k in range(n // (r + 1), 0, -1)]
    return _least_work(model, sizes, code="replication")


def per_convolution(
    model: CodedModel, stages: tuple[tuple[int, int], ...]
) -> ServedStrategy:
    """Returns the same k and r with a linear code, exact where each stage is one
    convolution.

    Raises:
      ValueError: a stage cannot be split into that many pieces.
    """
    sizes = [(model.pipeline.k, model.pipeline.r)]
    return _least_work(model, sizes, code="mds", stages=stages)


def _least_work(
    model: CodedModel, sizes: Iterable[tuple[int, int]], **settings: Any
) -> ServedStrategy:
    """Returns the model with another code: of the first k and r by which the network
    can be split, that with the grid of least work."""
    results, config = model.results, Config.from_json(model.results["config"])
    own = {"stage_grids": None, "l": None, "tried": None}
    own |= {"baselines": (), "pattern_weights": (), **settings}
    for k, r in sizes:
        rivals = []
        for rows in (rows for rows in range(1, k + 1) if k % rows == 0):
            own |= {"k": k, "r": r, "grid": (rows, k // rows)}
            try:
                pipeline = build_pipeline(
                    dataclasses.replace(config, **own),
                    model.pipeline.examples,
                    results["classes"],
                    base=model.pipeline.base,
                )
            except ValueError:  # the features have not so many rows or columns
                continue
            params = pipeline.init(jax.random.key(0))
            rivals.append(coded(model._replace(pipeline=pipeline, params=params)))
        if rivals:
            return min(rivals, key=lambda rival: rival.cost.device_flops)
    raise ValueError(
        f"k: {[k for k, _ in sizes]} given with {settings}, a split of the network "
        "accepted"
    )
