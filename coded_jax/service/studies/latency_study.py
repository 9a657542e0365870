"""Latencies of a code and its rivals on the same workers, measured and simulated.

Request i meets the same faults with every strategy, and in its simulation.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from rich.console import Console

from coded_jax.checks import require
from coded_jax.codes import quorum
from coded_jax.evaluation import predictions
from coded_jax.inference.costs import Cost, Round
from coded_jax.latency.machines import Draws, Machine
from coded_jax.latency.simulation import Workload, complete
from coded_jax.latency.stragglers import Constant
from coded_jax.runs import workdir
from coded_jax.runs.coded_model import CodedModel, compiled_infer
from coded_jax.runs.progress import progress_bars
from coded_jax.service import requests as responses
from coded_jax.service.engine import Inference
from coded_jax.service.faults import Faults, FaultyWorker, inject
from coded_jax.service.gathering import NotEnoughResults
from coded_jax.service.studies.pace import PacedFirstK, send_one_by_one
from coded_jax.service.studies.rivals import ServedStrategy
from coded_jax.types import Split

CALM = Faults()


class Study:
    """The parts of a study that have been measured so far, kept on the disk.

    Args:
      path: of its JSON file; with that of an earlier process, the study goes on.
      settings: of the study, as JSON.

    Raises:
      ValueError: the file is of other settings.
    """

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        self.path = path
        self.content = {"settings": json.loads(json.dumps(settings)), "parts": {}}
        if path.exists():
            earlier = json.loads(path.read_text())
            same = earlier.get("settings") == self.content["settings"]
            accepted = "a new folder, or one of a study of the same settings,"
            require("output", str(path.parent), same, accepted)
            self.content = earlier
        self.parts: dict[str, Any] = self.content["parts"]

    def part(self, name: str, make: Callable[[], Any]) -> Any:
        """Returns a part, and makes it unless that was done before."""
        if name not in self.parts:
            self.parts[name] = make()
            self.write()
        return self.parts[name]

    def measure(
        self,
        name: str,
        count: int,
        make: Callable[[Callable[[int], None]], Any],
        console: Console,
    ) -> Any:
        """Returns a part likewise, with a bar while it is measured.

        Args:
          name: of the part.
          count: of its requests.
          make: calls its argument with the number of each request that is over.
          console: shows the bar.
        """

        def with_bar() -> Any:
            with progress_bars(console) as bars:
                bar = bars.add_task(name, total=count, note="")
                return make(lambda _: bars.advance(bar))

        return self.part(name, with_bar)

    def write(self, **more: Any) -> None:
        """Writes the file, with more fields if some are given."""
        self.content |= more
        workdir.write_atomically(self.path, json.dumps(self.content))


class Measurement(NamedTuple):
    """Latencies and accuracy of `R` requests.

    Attributes:
      seconds: `[R]`, infinite for requests that were lost.
      phases: mean seconds of `encode`; of `decode` in requests without decoding; and
        `decoding`, how much longer that takes the others.
      accuracy: of the answers; a lost request counts as wrong.
      direct: accuracy of a direct computation from the same results.
      agreement: fraction of answers with the class of that computation.
      decoded: fraction of answers that a decoder had part in.
    """

    seconds: list[float]
    phases: dict[str, float]
    accuracy: float
    direct: float
    agreement: float
    decoded: float


def measure_latencies(
    engine: PacedFirstK,
    split: Split,
    requests: int,
    faults: Faults = CALM,
    *,
    deadline: float = 60.0,
    ended: Callable[[int], None] = lambda number: None,
) -> Measurement:
    """Measures requests of one image each, one at a time.

    Args:
      engine: how the workers are used.
      split: request i has its image `i mod N`.
      requests: R.
      faults: that the workers meet.
      deadline: seconds, after which a request is lost.
      ended: called with the number of each request when it is over.

    Raises:
      ValueError: all requests were lost.
    """
    inject(engine.pool, faults)
    rows = np.arange(requests) % len(split.labels)
    images, labels = split.images[rows], split.labels[rows]
    seconds, inferences = send_one_by_one(engine, images, deadline, ended=ended)
    if not inferences:
        raise ValueError(f"deadline: {deadline} given, by which no request has ended")
    return summarise(engine.model, Split(images, labels), seconds, inferences)


def summarise(
    model: CodedModel,
    split: Split,
    seconds: np.ndarray,
    inferences: dict[int, Inference],
) -> Measurement:
    """Returns the measurement of R requests, some of which were lost.

    Args:
      model: responded to them.
      split: an image and its label for each.
      seconds: float64 `[R]`, infinite for lost requests.
      inferences: by the number of the request, one or more.
    """
    pipeline = model.pipeline._replace(mesh=None)
    computed = [
        compiled_infer(
            pipeline, model.frozen, model.params, split.images[[i]], own.available
        )
        for i, own in inferences.items()
    ]
    answered = [*inferences.values()]
    direct, classes = (
        np.asarray(predictions.classes_of(np.concatenate(logits)))
        for logits in (computed, [x.logits for x in answered])
    )
    correct, counted = split.labels[[*inferences]], (split.labels >= 0).sum()
    decoded = np.array([any(responses.respond(model, x).decoded) for x in answered])
    decode = np.array([x.seconds["decode"] for x in answered])
    usual = decode if decoded.all() else decode[~decoded]
    longer = decode[decoded].mean() - usual.mean() if decoded.any() else 0.0
    return Measurement(
        seconds.tolist(),
        phases={
            "encode": float(np.mean([own.seconds["encode"] for own in answered])),
            "decode": float(usual.mean()),
            "decoding": float(max(longer, 0.0)),
        },
        accuracy=float((classes == correct).sum() / counted),
        direct=float((direct == correct).sum() / counted),
        agreement=float((classes == direct).mean()),
        decoded=float(decoded.mean()),
    )


def measure_recovery(
    engine: PacedFirstK, images: np.ndarray, count: int, deadline: float
) -> dict[str, Any]:
    """Kills workers at once, and sends requests until they compute again.

    Args:
      engine: how the workers are used.
      images: of the test split.
      count: number of workers to kill, the first ones.
      deadline: seconds, of a request and of the recovery.

    Returns:
      `requests` that were sent in this time, those `lost`, the seconds of the `slowest`
      of them, and for each worker `seconds` until it computed again.
    """
    pool = engine.pool
    inject(pool, CALM)
    engine.warm_up(1)
    before = [worker["restarts"] for worker in pool.status()]
    begun = time.monotonic()
    for worker in pool.workers[:count]:
        assert isinstance(worker, FaultyWorker)  # by `inject`
        worker.kill()
    back: dict[int, float] = {}
    sent, lost, slowest = 0, 0, 0.0
    while len(back) < count and time.monotonic() < begun + deadline:
        row, start = sent % len(images), time.monotonic()
        try:
            engine.infer(sent, images[row : row + 1], start + deadline)
            slowest = max(slowest, time.monotonic() - start)
        except NotEnoughResults:
            lost += 1
        sent += 1
        for i, status in enumerate(pool.status()[:count]):
            if status["up"] and status["restarts"] > before[i]:
                back.setdefault(i, time.monotonic() - begun)
    seconds = [back.get(i, float("inf")) for i in range(count)]
    return {"requests": sent, "lost": lost, "slowest": slowest, "seconds": seconds}


def simulate_latencies(
    strategy: ServedStrategy,
    calm: Measurement,
    faults: Faults,
    workers: int,
    requests: int,
) -> list[float]:
    """Simulates the requests that `measure_latencies` sends.

    Args:
      strategy: how the workers are used.
      calm: the same measured without faults: its times are those of the simulated
        computation, encoder and decoder.
      faults: whose delays the requests meet; with the `service` of those that were
        measured.
      workers: number of workers.
      requests: R.

    Returns:
      R seconds.
    """
    pipeline = strategy.model.pipeline
    rule, rounds = pipeline.stages[0].code.quorum, len(pipeline.stages)
    encode, client, decoding = (
        calm.phases[x] for x in ("encode", "decode", "decoding")
    )
    # In seconds: of a client, and of machines, that take one for the whole.
    trip = Round(
        1.0,
        encode_flops=encode / rounds,
        decode_flops=decoding / rounds if quorum.decodes(rule) else 0,
    )
    workload = Workload(
        rule,
        pipeline.k,
        strategy.sent_beside,
        Cost((trip,) * rounds, client, Round(1.0), workers),
        hedge_after=strategy.hedges,
        systematic=pipeline.systematic,
        spares=workers - pipeline.k if strategy.hedges else 0,
    )
    # Computation on the workers, as it was measured: one request after the other, less
    # the decoding. Where machines have had the rest of the time that they need at
    # least, that is in it; where they need none, its mean is.
    every = np.asarray(calm.seconds)
    answered = every[np.isfinite(every)] - client - encode
    least = sum(faults.service)
    decoded = np.where(answered - decoding >= least, decoding, 0.0)
    if not least:
        decoded = np.full(len(answered), calm.decoded * decoding)
    seconds = np.maximum(answered - decoded, 0) / rounds
    compute = jnp.asarray(np.resize(seconds, (1, requests)), jnp.float32)
    compute = jnp.broadcast_to(compute, (workers, requests))
    delay, delay_again = (
        jnp.asarray(
            [
                [fault.delay for fault in faults.of_request(i, workers, attempt)]
                for i in range(requests)
            ]
        ).T
        for attempt in (0, 1)
    )
    draws = Draws(compute, delay, compute, delay_again)
    client_of_a_second = Machine(Constant(1.0), client=1.0)
    simulated = complete(workload, client_of_a_second, lambda i: draws).seconds
    return np.asarray(simulated, np.float64).round(6).tolist()
