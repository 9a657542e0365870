"""Latencies of a code and its rivals on the same workers, measured and simulated.

Request i meets the same faults with every strategy, and in its simulation. Each part of
the study is kept on the disk when it is measured.
"""

from __future__ import annotations

import dataclasses
import functools
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
from coded_jax.service.engine import Inference, NotEnoughResults
from coded_jax.service.faults import Faults, FaultyWorker, inject
from coded_jax.service.service import Service
from coded_jax.service.studies import rivals
from coded_jax.service.studies.pace import PacedFirstK, send_one_by_one
from coded_jax.service.studies.rivals import ServedStrategy
from coded_jax.types import Split

CHUNK = 100  # images of a direct computation
CALM = Faults()


class Requests(NamedTuple):
    """The requests of a study.

    Attributes:
      delayed, calm: how many with delays and without, of each strategy.
      faults: met by the delayed ones; delays, exceptions and NaN alone.
      deadline: seconds, after which a request is lost.
      service: seconds of the whole `F_Conv` on a machine; its worker takes its part of
        them, asleep when it has computed.
      clients: likewise of the client, for each client that is tried; 0 for one that is
        as fast as this machine.
      hedge_after: seconds; twice the calm median of uncoded requests if None. Pieces
        that are sent twice at once are measured, too.
      mds_stages: convolutions that a linear code is tried with.
      kills: whether as many workers are killed as the code survives.
    """

    delayed: int
    calm: int
    faults: Faults
    deadline: float
    service: float = 0.0
    clients: tuple[float, ...] = (0.0,)
    hedge_after: float | None = None
    mds_stages: tuple[int, ...] = ()
    kills: bool = False


class Study:
    """The parts of a study that have been measured so far.

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


def measure_study(
    study: Study, service: Service, split: Split, requests: Requests, console: Console
) -> None:
    """Measures all parts of a study that are missing.

    Args:
      study: of which parts may be there.
      service: whose workers are used.
      split: of the images.
      requests: that are sent.
      console: shows a bar for each part.
    """
    pool, model = service.engine.pool, service.model
    assert pool is not None  # of an engine with workers

    def at_pace(strategy: ServedStrategy, faults: Faults) -> Faults:
        per_flop = requests.service / strategy.cost.whole_flops
        own = tuple(per_flop * trip.device_flops for trip in strategy.cost.rounds)
        return dataclasses.replace(faults, service=own)

    def measured(
        name: str, strategy: ServedStrategy, count: int, faults: Faults
    ) -> dict[str, Any]:
        def make() -> dict[str, Any]:
            with progress_bars(console) as bars:
                bar = bars.add_task(name, total=count, note="")
                return measure_latencies(
                    strategy.engine(pool),
                    split,
                    count,
                    at_pace(strategy, faults),
                    deadline=requests.deadline,
                    ended=lambda _: bars.advance(bar),
                )._asdict()

        return study.part(name, make)

    bare = lambda: _program_seconds(model, split.images, requests.calm)
    study.part("bare", bare)
    uncoded = rivals.uncoded(model)
    rounds = tuple((block, block) for block in requests.mds_stages)
    for client in requests.clients:
        plain = ServedStrategy(uncoded, client=client)
        name = part_name("uncoded, calm", client)
        usual = measured(name, plain, requests.calm, CALM)
        late = requests.hedge_after
        if late is None:  # late is what takes twice as long as usual
            late = 2 * float(np.median(usual["seconds"]))
        strategies = {
            "uncoded": plain,
            "hedged": plain._replace(hedge_after=late),
            "hedged at once": plain._replace(hedge_after=0.0),
            "replication": plain._replace(model=rivals.replicated(model)),
            "coded": plain._replace(model=model),
        }
        if rounds:
            mds = rivals.per_convolution(model, rounds)
            strategies["mds"] = plain._replace(model=mds)
        for name, own in strategies.items():
            calm, delayed, simulated, plan = (
                part_name(f"{name}, {kind}", client)
                for kind in ("calm", "delayed", "simulated", "plan")
            )
            quiet = measured(calm, own, requests.calm, CALM)
            measured(delayed, own, requests.delayed, requests.faults)
            simulate = functools.partial(
                simulate_latencies,
                own,
                Measurement(**quiet),
                at_pace(own, requests.faults),
                workers=len(pool),
                requests=requests.delayed,
            )
            study.part(simulated, simulate)
            study.part(plan, own.plan)
    if requests.kills:
        coded = ServedStrategy(model).engine(pool)
        recover = lambda: measure_recovery(
            coded, split.images, model.pipeline.r, requests.deadline
        )
        study.part("killed", recover)


def part_name(name: str, client: float) -> str:
    """Returns the name of a part with a client of that speed; as it was before clients
    were slowed, for one that is not."""
    return f"{name}, client {1e3 * client:g} ms" if client else name


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
    rows, answered = [*inferences], [*inferences.values()]
    decoded = np.array([any(responses.respond(model, own).decoded) for own in answered])
    logits = np.concatenate([own.logits for own in answered])
    classes = np.asarray(predictions.classes_of(logits))
    available = np.concatenate([own.available for own in answered], axis=2)
    direct = _direct_classes(model, split.images[rows], available)
    encode, decode = np.array(
        [[own.seconds[phase] for own in answered] for phase in ("encode", "decode")]
    )
    usual = decode if decoded.all() else decode[~decoded]
    longer = decode[decoded].mean() - usual.mean() if decoded.any() else 0.0
    correct, counted = split.labels[rows], (split.labels >= 0).sum()
    return Measurement(
        seconds.tolist(),
        phases={
            "encode": float(encode.mean()),
            "decode": float(usual.mean()),
            "decoding": float(max(longer, 0.0)),
        },
        accuracy=float((classes == correct).sum() / counted),
        direct=float((direct == correct).sum() / counted),
        agreement=float((classes == direct).mean()),
        decoded=float(decoded.mean()),
    )


def _direct_classes(
    model: CodedModel, images: np.ndarray, available: np.ndarray
) -> np.ndarray:
    """Computes classes `[R, ...]` by one program, from results bool `[S, n, R]`."""
    pipeline, classes = model.pipeline._replace(mesh=None), []
    for start in range(0, len(images), CHUNK):
        # The last image repeated, so that all chunks are of one compilation.
        rows = np.minimum(np.arange(start, start + CHUNK), len(images) - 1)
        logits = compiled_infer(
            pipeline, model.frozen, model.params, images[rows], available[:, :, rows]
        )
        classes.append(np.asarray(predictions.classes_of(logits)))
    return np.concatenate(classes)[: len(images)]


def _program_seconds(
    model: CodedModel, images: np.ndarray, requests: int
) -> list[float]:
    """Measures the same computation as one program, without any engine, on as many
    devices as the model was loaded for."""
    np.asarray(model.logits(images[:1]))  # compiles
    seconds = []
    for i in range(requests):
        row = i % len(images)
        begun = time.monotonic()
        np.asarray(model.logits(images[row : row + 1]))
        seconds.append(round(time.monotonic() - begun, 6))
    return seconds


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
    engine.warm_up(images[:1])
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
