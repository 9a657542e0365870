"""The SPMD engine: one program over all devices, which waits for the slowest."""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Any

import numpy as np

from coded_jax.codes import erasures
from coded_jax.codes.quorum import suffices
from coded_jax.devices import placement
from coded_jax.runs.coded_model import compiled_infer
from coded_jax.service.engine import Closed, Engine, Inference, NotEnoughResults


class Spmd(Engine):
    """Computes requests by `pipeline.infer` on the mesh of the model.

    A slow device delays the response, and one that fails fails all. It is the reference
    for the other engines, and the fastest of them where no device is slow.
    """

    def infer(
        self, number: int, images: Any, end: float, without: Collection[int] = ()
    ) -> Inference:
        model, begun = self.model, time.monotonic()
        pipeline, stages = model.pipeline, len(model.pipeline.stages)
        if self._closed.is_set():
            raise Closed("the service was closed before the response")
        available = erasures.available(without, pipeline.n)
        arrived = np.flatnonzero(available).tolist()
        rules = [stage.code.quorum for stage in pipeline.stages]
        if not all(suffices(rule, pipeline.k, arrived) for rule in rules):
            raise NotEnoughResults(f"results {arrived} of {pipeline.n} are not enough")
        images = placement.put_replicated(pipeline.mesh, images)
        logits = compiled_infer(pipeline, model.frozen, model.params, images, available)
        logits.block_until_ready()
        seconds = time.monotonic() - begun
        if begun + seconds > end:
            raise NotEnoughResults(f"the program took {seconds:.3g} s")
        return Inference(
            logits,
            np.broadcast_to(available, (stages, *available.shape)),
            used=(tuple(arrived),) * stages,
            degraded=False,
            seconds={"encode": 0.0, "wait": seconds, "decode": 0.0},
        )

    def warm_up(self, images: Any) -> None:
        self.infer(0, images, float("inf"))
