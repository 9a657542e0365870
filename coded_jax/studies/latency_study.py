"""Latencies of several strategies on the same workers, measured and simulated.

Requests go out one at a time, each when all workers are idle again, so that they are
independent, as the simulated ones are. What workers meet with request i is the same for
all strategies, and for their simulation.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from coded_jax.evaluation import predictions
from coded_jax.runs.coded_model import CodedModel, compiled_infer
from coded_jax.serving.faults import Faults
from coded_jax.serving.first_k import FirstK
from coded_jax.serving.pool import Pool
from coded_jax.serving.rounds import NotEnoughResults
from coded_jax.serving.service import Service

IDLE = 0.0005  # seconds between looks whether all workers are idle


class Strategy(NamedTuple):
    """One way to use the workers.

    Attributes:
      kind: one of `strategies.STRATEGIES`.
      model: its split and its code.
      hedge_after: seconds, see `FirstK`.
    """

    kind: str
    model: CodedModel
    hedge_after: float | None = None


class Measured(NamedTuple):
    """What R requests have shown.

    Attributes:
      seconds: float64 `[R]`, infinite for those that were lost.
      phases: mean seconds of each phase; `decode` is that of answers where nothing was
        decoded, `decoding` how much longer the others took.
      accuracy: of the answers, lost requests included.
      direct: of a direct computation from the same results.
      agreement: share of answers with the class of that computation.
      decoded: share of answers that a decoder made.
    """

    seconds: np.ndarray
    phases: dict[str, float]
    accuracy: float
    direct: float
    agreement: float
    decoded: float


def measure(
    strategy: Strategy,
    pool: Pool,
    images: np.ndarray,
    labels: np.ndarray,
    requests: int,
    faults: Faults | None = None,
    deadline: float = 60.0,
    advance: Callable[[], None] = lambda: None,
) -> Measured:
    """Sends requests of one image each, one at a time.

    Args:
      strategy: how they are answered.
      pool: the workers.
      images, labels: of the test split; request i is image `i mod N`.
      requests: R.
      faults: what workers meet on purpose.
      deadline: seconds, after which a request is lost.
      advance: called after every request.
    """
    engine = FirstK(strategy.model, pool, "error", strategy.hedge_after, faults)
    service = Service(strategy.model, engine, deadline, in_flight=1)
    service.warm_up(1)
    rows = np.arange(requests) % len(labels)
    seconds = np.full(requests, np.inf)
    answers = {}
    for i, row in enumerate(rows):
        _wait_until_idle(pool, deadline)
        try:
            answers[i] = service.submit(images[row : row + 1]).result()
        except NotEnoughResults:
            continue
        finally:
            advance()
        seconds[i] = answers[i].seconds["total"]
    service.release()
    return _told(strategy.model, images[rows], labels[rows], seconds, answers)


def _wait_until_idle(pool: Pool, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not pool.idle:
        if time.monotonic() > end:
            raise RuntimeError(f"a worker has not become idle within {seconds:g} s")
        time.sleep(IDLE)


def _told(model, images, labels, seconds, answers) -> Measured:
    numbers = sorted(answers)
    answered = [answers[i] for i in numbers]
    pipeline = model.pipeline._replace(mesh=None)
    arrived = np.zeros((len(pipeline.codings), pipeline.n, len(numbers)), bool)
    for place, answer in enumerate(answered):
        for s, pieces in enumerate(answer.arrived):
            arrived[s, list(pieces), place] = True
    classes = np.array([answer.classes[0] for answer in answered])
    direct = []
    for start in range(0, len(numbers), 100):  # the last ones repeated: one compilation
        some = np.minimum(np.arange(start, start + 100), len(numbers) - 1)
        few = images[numbers][some]
        available = arrived[:, :, some]
        logits = compiled_infer(pipeline, model.frozen, model.params, few, available)
        direct.append(np.asarray(predictions.classes_of(logits)))
    expected = np.concatenate(direct)[: len(numbers)] if direct else classes
    decoded = np.array([any(answer.decoded) for answer in answered], bool)
    phase = lambda name, some: float(
        np.mean([a.seconds[name] for a, use in zip(answered, some, strict=True) if use])
        if some.any()
        else 0.0
    )
    every = np.ones(len(answered), bool)
    phases = {name: phase(name, every) for name in ("queue", "encode", "wait")}
    plain, made = phase("decode", ~decoded), phase("decode", decoded)
    phases["decode"] = plain if (~decoded).any() else made
    phases["decoding"] = max(made - plain, 0.0) if decoded.any() else 0.0
    right = labels[numbers]
    return Measured(
        seconds,
        phases,
        float((classes == right).sum() / len(seconds)),
        float((expected == right).sum() / len(seconds)),
        float((classes == expected).mean()) if numbers else 0.0,
        float(decoded.mean()) if numbers else 0.0,
    )


def bare(model: CodedModel, images: np.ndarray, requests: int) -> np.ndarray:
    """Seconds `[R]` of the same computation as one program, without any engine.

    Args:
      model: on as many devices as it was loaded for.
      images: of the test split; request i is image `i mod N`.
      requests: R.
    """
    seconds = np.zeros(requests + 1)
    for i in range(-1, requests):  # the first one compiles
        row = i % len(images)
        begun = time.monotonic()
        np.asarray(model.logits(images[row : row + 1]))
        seconds[i] = time.monotonic() - begun
    return seconds[:-1]


class Recovery(NamedTuple):
    """What happened after workers were killed.

    Attributes:
      requests, lost: sent until all workers were back, and without an answer.
      slowest: seconds of the slowest of them.
      seconds: until each worker computed again.
    """

    requests: int
    lost: int
    slowest: float
    seconds: list[float]


def kill(
    strategy: Strategy, pool: Pool, images: np.ndarray, count: int, deadline: float
) -> Recovery:
    """Kills workers, and sends requests until they are back.

    Args:
      strategy: how they are answered.
      pool: the workers, of which the first `count` are killed at once.
      images: of the test split.
      count: how many.
      deadline: seconds, of a request and of the recovery.
    """
    engine = FirstK(strategy.model, pool, "error", strategy.hedge_after)
    service = Service(strategy.model, engine, deadline, in_flight=1)
    service.warm_up(1)
    before = [worker["restarts"] for worker in pool.status()]
    begun = time.monotonic()
    for worker in range(count):
        pool.workers[worker].disturb("kill")
    back: dict[int, float] = {}
    sent, lost, slowest = 0, 0, 0.0
    while len(back) < count and time.monotonic() < begun + deadline:
        row = sent % len(images)
        sent += 1
        try:
            answer = service.submit(images[row : row + 1]).result()
            slowest = max(slowest, answer.seconds["total"])
        except NotEnoughResults:
            lost += 1
        for worker, status in enumerate(pool.status()[:count]):
            if status["up"] and status["restarts"] > before[worker]:
                back.setdefault(worker, time.monotonic() - begun)
    service.release()
    seconds = [back.get(worker, float("inf")) for worker in range(count)]
    return Recovery(sent, lost, slowest, seconds)
