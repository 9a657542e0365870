"""Latencies of several strategies on the same workers, measured and simulated.

Requests go out one at a time, each when all workers are idle again, so that they are
independent, as the simulated ones are. Request i meets the same faults with every
strategy, and in its simulation.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from coded_jax.checks import require
from coded_jax.codes import quorum
from coded_jax.evaluation import predictions
from coded_jax.inference.costs import Cost, Round, cost_of
from coded_jax.latency.machines import Draws, Machine
from coded_jax.latency.stragglers import Constant
from coded_jax.latency.workloads import Workload, complete
from coded_jax.runs.coded_model import CodedModel, compiled_infer
from coded_jax.service.config import ServeConfig
from coded_jax.service.engine import NotEnoughResults
from coded_jax.service.faults import Faults, FaultyWorker, Source, inject
from coded_jax.service.pool import Pool
from coded_jax.service.requests import Response
from coded_jax.service.service import Service
from coded_jax.service.studies.pace import PacedFirstK
from coded_jax.types import Split

IDLE = 0.0005  # seconds between looks whether all workers are idle
CHUNK = 100  # images of a direct computation


class ServedStrategy(NamedTuple):
    """A strategy as workers are used for it.

    Attributes:
      model: with its split and its code.
      hedge_after: seconds, see `ServeConfig`.
      client: seconds that the client is to take for the whole `F_Conv`, by which it is
        slowed as the workers are; 0 for one that is as fast as this machine.
    """

    model: CodedModel
    hedge_after: float | None = None
    client: float = 0.0


class Measurement(NamedTuple):
    """Latencies and accuracy of `R` requests.

    Attributes:
      seconds: float64 `[R]`, infinite for requests that were lost.
      phases: mean seconds of each phase; `decode` of responses without decoding,
        `decoding` how much longer it takes the others.
      accuracy: of the responses; a lost request counts as wrong.
      direct: accuracy of a direct computation from the same results.
      agreement: fraction of responses with the class of that computation.
      decoded: fraction of responses that a decoder had part in.
    """

    seconds: np.ndarray
    phases: dict[str, float]
    accuracy: float
    direct: float
    agreement: float
    decoded: float


def measure_latencies(
    strategy: ServedStrategy,
    pool: Pool,
    split: Split,
    requests: int,
    *,
    faults: Source | None = None,
    deadline: float = 60.0,
    advance: Callable[[], None] = lambda: None,
) -> Measurement:
    """Sends requests of one image each, one at a time.

    Args:
      strategy: how the workers are used.
      pool: the workers.
      split: request i has its image `i mod N`.
      requests: R.
      faults: that the workers meet; of `Faults`, delays, exceptions and NaN alone.
      deadline: seconds, after which a request is lost.
      advance: called after every request.

    Raises:
      ValueError: answers are values, of which there is no accuracy.
    """
    require("model", "values", not strategy.model.values, "one that answers by classes")
    inject(pool, faults or Faults())
    service = _service(strategy, pool, deadline)
    rows = np.arange(requests) % len(split.labels)
    responses: dict[int, Response] = {}
    for i, row in enumerate(rows):
        wait_until_idle(pool, deadline)
        try:
            responses[i] = service.submit(split.images[row : row + 1]).result()
        except NotEnoughResults:
            continue
        finally:
            advance()
    service.release()
    return summarise(strategy.model, split.images[rows], split.labels[rows], responses)


def _service(strategy: ServedStrategy, pool: Pool, deadline: float) -> Service:
    model = strategy.model
    cost = cost_of(model.pipeline, model.frozen, model.image_shape)
    engine = PacedFirstK(model, pool, cost, strategy.client, strategy.hedge_after)
    config = ServeConfig(deadline=deadline, in_flight=1)
    service = Service(engine, config)
    service.warm_up(1)
    return service


def wait_until_idle(pool: Pool, seconds: float) -> None:
    """Waits until no worker computes anything.

    Raises:
      RuntimeError: some worker does after so many seconds.
    """
    end = time.monotonic() + seconds
    while not pool.idle:
        if time.monotonic() > end:
            raise RuntimeError(f"a worker has not become idle within {seconds:g} s")
        time.sleep(IDLE)


def summarise(
    model: CodedModel,
    images: np.ndarray,
    labels: np.ndarray,
    responses: dict[int, Response],
) -> Measurement:
    """Returns the measurement of R requests, some of which were lost.

    Args:
      model: responded to them.
      images: `[R, H, W, C]` of the pipeline's `image_dtype`.
      labels: int32 `[R]`, or `[R, H', W']` where answers are images.
      responses: by the number of the request; lost requests have none.
    """
    seconds = np.full(len(labels), np.inf)
    for i, response in responses.items():
        seconds[i] = response.seconds["total"]
    numbers = sorted(responses)
    answered = [responses[i] for i in numbers]
    if not answered:
        right = dict.fromkeys(("accuracy", "direct", "agreement", "decoded"), 0.0)
        return Measurement(seconds, _phases([]), **right)
    classes = np.array([response.classes[0] for response in answered])
    direct = _direct(model, images[numbers], answered)
    correct, counted = labels[numbers], (labels >= 0).sum()
    return Measurement(
        seconds,
        _phases(answered),
        accuracy=float((classes == correct).sum() / counted),
        direct=float((direct == correct).sum() / counted),
        agreement=float((classes == direct).mean()),
        decoded=float(np.mean([any(response.decoded) for response in answered])),
    )


def _direct(
    model: CodedModel, images: np.ndarray, responses: list[Response]
) -> np.ndarray:
    """Computes classes `[R, ...]` by one program, from the results of each response."""
    pipeline = model.pipeline._replace(mesh=None)
    stages = len(responses[0].arrived)
    available = np.zeros((stages, pipeline.n, len(responses)), bool)
    for i, response in enumerate(responses):
        for stage, pieces in enumerate(response.arrived):
            available[stage, list(pieces), i] = True
    classes = []
    for start in range(0, len(images), CHUNK):
        # The last image repeated, so that all chunks are of one compilation.
        rows = np.minimum(np.arange(start, start + CHUNK), len(images) - 1)
        logits = compiled_infer(
            pipeline, model.frozen, model.params, images[rows], available[:, :, rows]
        )
        classes.append(np.asarray(predictions.classes_of(logits)))
    return np.concatenate(classes)[: len(images)]


def _phases(responses: list[Response]) -> dict[str, float]:
    """Returns mean seconds, see `Measurement`."""

    def mean(name: str, of: list[Response]) -> float:
        return float(np.mean([r.seconds[name] for r in of])) if of else 0.0

    decoded = [response for response in responses if any(response.decoded)]
    whole = [response for response in responses if not any(response.decoded)]
    phases = {name: mean(name, responses) for name in ("queue", "encode", "wait")}
    short, long = mean("decode", whole), mean("decode", decoded)
    phases["decode"] = short if whole else long
    phases["decoding"] = max(long - short, 0.0) if decoded else 0.0
    return phases


def program_seconds(model: CodedModel, images: np.ndarray, requests: int) -> np.ndarray:
    """Measures the same computation as one program, without any engine.

    Args:
      model: on as many devices as it was loaded for.
      images: of the test split; request i is image `i mod N`.
      requests: R.

    Returns:
      float64 `[R]` seconds.
    """
    np.asarray(model.logits(images[:1]))  # compiles
    seconds = np.zeros(requests)
    for i in range(requests):
        row = i % len(images)
        begun = time.monotonic()
        np.asarray(model.logits(images[row : row + 1]))
        seconds[i] = time.monotonic() - begun
    return seconds


class Recovery(NamedTuple):
    """The time after workers were killed, until they computed again.

    Attributes:
      requests, lost: sent in this time, and without a response.
      slowest: seconds of the slowest of them.
      seconds: for each worker, until it computed again.
    """

    requests: int
    lost: int
    slowest: float
    seconds: list[float]


def measure_recovery(
    strategy: ServedStrategy,
    pool: Pool,
    images: np.ndarray,
    count: int,
    deadline: float,
) -> Recovery:
    """Kills workers, and sends requests until they are back.

    Args:
      strategy: how the workers are used.
      pool: the workers, of which the first `count` are killed at once.
      images: of the test split.
      count: number of workers to kill.
      deadline: seconds, of a request and of the recovery.
    """
    inject(pool, Faults())
    service = _service(strategy, pool, deadline)
    before = [worker["restarts"] for worker in pool.status()]
    begun = time.monotonic()
    for worker in pool.workers[:count]:
        assert isinstance(worker, FaultyWorker)  # by `inject`
        worker.kill()
    back: dict[int, float] = {}
    sent, lost, slowest = 0, 0, 0.0
    while len(back) < count and time.monotonic() < begun + deadline:
        row = sent % len(images)
        sent += 1
        try:
            response = service.submit(images[row : row + 1]).result()
            slowest = max(slowest, response.seconds["total"])
        except NotEnoughResults:
            lost += 1
        for i, status in enumerate(pool.status()[:count]):
            if status["up"] and status["restarts"] > before[i]:
                back.setdefault(i, time.monotonic() - begun)
    service.release()
    seconds = [back.get(i, float("inf")) for i in range(count)]
    return Recovery(sent, lost, slowest, seconds)


def simulate_latencies(
    strategy: ServedStrategy,
    calm: Measurement,
    faults: Faults,
    workers: int,
    requests: int,
) -> np.ndarray:
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
      float32 `[R]` seconds.
    """
    pipeline, hedge_after = strategy.model.pipeline, strategy.hedge_after
    rule, rounds = pipeline.stages[0].code.quorum, len(pipeline.stages)
    phases = calm.phases
    # In seconds: of a client, and of machines, that take one for the whole.
    trip = Round(
        1.0,
        encode_flops=phases["encode"] / rounds,
        decode_flops=phases["decoding"] / rounds if quorum.decodes(rule) else 0,
    )
    client = phases["queue"] + phases["decode"]
    workload = Workload(
        rule,
        pipeline.k,
        len(quorum.sent(rule, pipeline.k, pipeline.n)) - pipeline.k,
        Cost((trip,) * rounds, client, Round(1.0), workers),
        hedge_after=() if hedge_after is None else (hedge_after,) * rounds,
        systematic=pipeline.systematic,
        spares=0 if hedge_after is None else workers - pipeline.k,
    )
    # Computation on the workers, as it was measured: one request after the other, less
    # the decoding. Where machines have had the rest of the time that they need at
    # least, that is in it; where they need none, its mean is.
    answered = calm.seconds[np.isfinite(calm.seconds)] - client - phases["encode"]
    decoding, least = phases["decoding"], sum(faults.service)
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
    return np.asarray(complete(workload, client_of_a_second, lambda i: draws).seconds)
