"""The parts of a latency study, each kept on the disk when it is measured."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console

from coded_jax.runs import workdir
from coded_jax.runs.coded_model import CodedModel
from coded_jax.runs.progress import progress_bars
from coded_jax.service.faults import Faults
from coded_jax.service.service import Service
from coded_jax.service.studies import latency_study, replay, rivals
from coded_jax.service.studies.latency_study import Measurement, ServedStrategy
from coded_jax.types import Split

KINDS = ("calm", "delayed", "simulated", "plan")
"""Names the parts that are kept of each strategy."""


class Requests(NamedTuple):
    """The requests of a study.

    Attributes:
      delayed, calm: how many with delays and without, of each strategy.
      faults: met by the delayed ones.
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
    """The parts that have been measured so far.

    Args:
      path: of its JSON file; with that of an earlier process, the study goes on.
      settings: of the study, as JSON.

    Raises:
      ValueError: the file is of other settings.
    """

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        self.path = path
        self.content: dict[str, Any] = {"settings": settings, "parts": {}}
        if self.path.exists():
            former = json.loads(self.path.read_text())
            if former.get("settings") != settings:
                raise ValueError(
                    f"output: {str(path.parent)!r} given, which has a report of other "
                    "settings; a new folder accepted"
                )
            self.content = former

    def part(self, name: str, make: Callable[[], Any]) -> Any:
        """Returns a part, and makes it unless that was done before."""
        if name not in self.content["parts"]:
            self.content["parts"][name] = make()
            self.write()
        return self.content["parts"][name]

    def write(self) -> None:
        """Writes the file."""
        workdir.write_atomically(self.path, json.dumps(self.content))


def measure(
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
    quiet = Faults()

    def part(name: str, strategy: ServedStrategy, count: int, faults: Faults) -> dict:
        seconds = rivals.service_seconds(strategy.model, requests.service)
        faults = dataclasses.replace(faults, service=seconds)

        def make() -> dict[str, Any]:
            with progress_bars(console) as bars:
                bar = bars.add_task(name, total=count, note="")
                measured = latency_study.measure_latencies(
                    strategy,
                    pool,
                    split,
                    count,
                    faults=faults,
                    deadline=requests.deadline,
                    advance=lambda: bars.advance(bar),
                )
            return {**measured._asdict(), "seconds": _microseconds(measured.seconds)}

        return study.part(name, make)

    study.part(
        "bare",
        lambda: _microseconds(
            latency_study.program_seconds(model, split.images, requests.calm)
        ),
    )
    for client in requests.clients:
        plain = ServedStrategy(rivals.uncoded(model), client=client)
        usual = part(part_name("uncoded, calm", client), plain, requests.calm, quiet)
        strategies = _strategies(model, requests, usual, client)
        for name, strategy in strategies.items():
            own = {kind: part_name(f"{name}, {kind}", client) for kind in KINDS}
            calm = part(own["calm"], strategy, requests.calm, quiet)
            part(own["delayed"], strategy, requests.delayed, requests.faults)
            simulated = functools.partial(
                _simulated, strategy, calm, requests, len(pool)
            )
            study.part(own["simulated"], simulated)
            study.part(own["plan"], functools.partial(_plan, strategy))
    if requests.kills:
        coded, count = ServedStrategy(model), model.pipeline.r
        study.part(
            "killed",
            lambda: latency_study.measure_recovery(
                coded, pool, split.images, count, requests.deadline
            )._asdict(),
        )


def part_name(name: str, client: float) -> str:
    """Returns the name of a part with a client of that speed; as it was before clients
    were slowed, for one that is not."""
    return f"{name}, client {1e3 * client:g} ms" if client else name


def _strategies(
    model: CodedModel, requests: Requests, calm: dict[str, Any], client: float
) -> dict[str, ServedStrategy]:
    """Returns the strategies by name; calm is the part of uncoded requests."""
    plain = rivals.uncoded(model)
    late = requests.hedge_after
    if late is None:  # late is what takes twice as long as usual
        late = 2 * float(np.median(calm["seconds"]))
    strategies = {
        "uncoded": ServedStrategy(plain),
        "hedged": ServedStrategy(plain, late),
        "hedged at once": ServedStrategy(plain, 0.0),
        "replication": ServedStrategy(rivals.replicated(model)),
        "coded": ServedStrategy(model),
    }
    if requests.mds_stages:
        stages = tuple((block, block) for block in requests.mds_stages)
        strategies["mds"] = ServedStrategy(rivals.per_convolution(model, stages))
    return {name: one._replace(client=client) for name, one in strategies.items()}


def _simulated(
    strategy: ServedStrategy, calm: dict[str, Any], requests: Requests, workers: int
) -> list[float]:
    measured = Measurement(**{**calm, "seconds": np.array(calm["seconds"])})
    seconds = rivals.service_seconds(strategy.model, requests.service)
    faults = dataclasses.replace(requests.faults, service=seconds)
    return _microseconds(
        replay.replay(strategy, measured, faults, workers, requests.delayed)
    )


def _plan(strategy: ServedStrategy) -> dict[str, Any]:
    return {
        "pieces": rivals.pieces_text(strategy.model.pipeline),
        "work": rivals.work_of(strategy.model),
        "hedge_after": strategy.hedge_after,
    }


def _microseconds(seconds: np.ndarray) -> list[float]:
    """Returns seconds that are rounded to microseconds."""
    return np.round(np.asarray(seconds, np.float64), 6).tolist()
