"""The SPMD engine: one program over all devices, which waits for the slowest."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection
from typing import Any

import numpy as np

from coded_jax.codes import erasures
from coded_jax.codes.quorum import suffices
from coded_jax.devices import placement
from coded_jax.runs.coded_model import CodedModel, compiled_infer
from coded_jax.service.engine import (
    OF_CLUSTERS,
    OF_POOLS,
    Closed,
    EngineKind,
    Inference,
    NotEnoughResults,
)


class Spmd:
    """Computes requests by `pipeline.infer` on the mesh of the model.

    A slow device delays the response, and one that fails fails all. It is the reference
    for the other engines, and the fastest of them where no device is slow.

    Args:
      model: the coded inference.
    """

    pool = None
    restarts = 0

    def __init__(self, model: CodedModel) -> None:
        self.model = model
        self._closed = threading.Event()

    def infer(
        self, number: int, images: Any, end: float, without: Collection[int] = ()
    ) -> Inference:
        """Computes request `number`, see `Engine.infer`."""
        model, begun = self.model, time.monotonic()
        pipeline = model.pipeline
        if self._closed.is_set():
            raise Closed("the service was closed before the response")
        if begun > end:
            raise NotEnoughResults("the program could not begin before the deadline")
        available = erasures.available(without, pipeline.n)
        arrived = np.flatnonzero(available).tolist()
        for stage in pipeline.stages:
            if not suffices(stage.code.quorum, pipeline.k, arrived):
                raise NotEnoughResults(
                    f"results {arrived} of {pipeline.n} are not enough"
                )
        images = placement.put_replicated(pipeline.mesh, images)
        logits = compiled_infer(pipeline, model.frozen, model.params, images, available)
        logits.block_until_ready()
        now = time.monotonic()
        if now > end:
            raise NotEnoughResults(f"the program took {now - begun:.3g} s")
        stages = len(pipeline.stages)
        return Inference(
            logits,
            np.broadcast_to(available, (stages, *available.shape)),
            used=(tuple(arrived),) * stages,
            degraded=False,
            seconds={"encode": 0.0, "wait": now - begun, "decode": 0.0},
        )

    def warm_up(self, images: Any) -> None:
        """Compiles what a batch of this size needs."""
        Spmd.infer(self, 0, images, float("inf"))  # without faults on purpose

    def obstacle(self) -> str | None:
        """Returns why no request can be answered: it is closed."""
        return "the service is closed" if self._closed.is_set() else None

    def failure(self) -> str | None:
        """Returns None: nothing of it can end by itself."""
        return None

    def close(self) -> None:
        """Refuses requests from now on."""
        self._closed.set()


ENGINE = EngineKind(
    lambda model, config, check: Spmd(model),
    ignores=OF_POOLS | OF_CLUSTERS,
    spread=True,
    pooled=False,
)
