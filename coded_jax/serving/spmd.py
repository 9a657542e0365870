"""All pieces as one program over all devices, which waits for the slowest of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection
from typing import Any

import numpy as np

from coded_jax.codes import erasures
from coded_jax.devices import placement
from coded_jax.runs.coded_model import CodedModel, compiled_infer
from coded_jax.serving import parts
from coded_jax.serving.faults import Fault, Faults, meet
from coded_jax.serving.first_k import Outcome
from coded_jax.serving.rounds import Closed, NotEnoughResults


class Spmd:
    """Answers requests by `pipeline.infer` on the mesh of the model.

    Nothing is taken before everything is there: a delay of one device delays the
    answer, and what fails on one fails on all. It is what the other engines are
    compared with, and the fastest one where no device is slow.

    Args:
      model: the coded inference.
      faults: delays and exceptions that devices meet on purpose.
    """

    def __init__(self, model: CodedModel, faults: Faults | None = None) -> None:
        self._model, self._faults = model, faults
        self._closed = threading.Event()
        unknown = faults and (faults.nans or faults.kills or faults.freezes)
        if unknown:
            raise ValueError(
                "faults: nans, kills or freezes given, delays and exceptions accepted "
                "by the spmd engine, whose devices are one program"
            )
        if faults is not None:
            faults.of_request(0, model.pipeline.n)  # refuses those of another number

    def infer(
        self, number: int, images: Any, end: float, without: Collection[int] = ()
    ) -> Outcome:
        """As `FirstK.infer`; the results of workers `without` are not looked at."""
        model, begun = self._model, time.monotonic()
        pipeline = model.pipeline
        if self._faults is not None:
            met = self._faults.of_request(number, pipeline.n)
            slowest = max(fault.delay for fault in met) + sum(self._faults.service)
            meet(Fault(min(slowest, max(end - begun, 0))), self._closed)
            for fault in met:
                meet(fault._replace(delay=0.0))
        if self._closed.is_set():
            raise Closed("the service was closed before the answer")
        if time.monotonic() > end:
            raise NotEnoughResults("the program waited for its slowest device")
        available = erasures.available(without, pipeline.n)
        arrived = np.flatnonzero(available)
        for coding in pipeline.codings:
            if not parts.enough(coding.code, pipeline.k, arrived):
                raise NotEnoughResults(
                    f"results {arrived.tolist()} of {pipeline.n} are not enough"
                )
        images = placement.put_everywhere(pipeline.mesh, images)
        logits = compiled_infer(pipeline, model.frozen, model.params, images, available)
        logits.block_until_ready()
        now = time.monotonic()
        if now > end:
            raise NotEnoughResults(f"the program took {now - begun:.3g} s")
        stages = len(pipeline.codings)
        return Outcome(
            logits,
            np.broadcast_to(available, (stages, *available.shape)),
            (tuple(arrived.tolist()),) * stages,
            False,
            {"encode": 0.0, "wait": now - begun, "decode": 0.0},
        )

    def begin_disturbance(self) -> None:
        """Nothing is killed or frozen."""

    def warm_up(self, images: Any) -> None:
        """Compiles what a batch such as this needs."""
        self.infer(0, images, float("inf"))

    def close(self) -> None:
        """Ends a delay."""
        self._closed.set()
