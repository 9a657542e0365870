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
from coded_jax.runs.progress import progress_bars
from coded_jax.service.faults import Faults
from coded_jax.service.service import Service
from coded_jax.service.studies import latency_study, rivals
from coded_jax.service.studies.latency_study import Measurement, ServedStrategy
from coded_jax.types import Split


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
        seconds = rivals.service_seconds(strategy.model, requests.service)
        return dataclasses.replace(faults, service=seconds)

    def measured(
        name: str, strategy: ServedStrategy, count: int, faults: Faults
    ) -> Any:
        def make() -> dict[str, Any]:
            with progress_bars(console) as bars:
                bar = bars.add_task(name, total=count, note="")
                measurement = latency_study.measure_latencies(
                    strategy,
                    pool,
                    split,
                    count,
                    faults=at_pace(strategy, faults),
                    deadline=requests.deadline,
                    advance=lambda: bars.advance(bar),
                )
            seconds = _microseconds(measurement.seconds)
            return {**measurement._asdict(), "seconds": seconds}

        return study.part(name, make)

    def simulated(strategy: ServedStrategy, calm: dict[str, Any]) -> list[float]:
        measurement = Measurement(**{**calm, "seconds": np.array(calm["seconds"])})
        faults = at_pace(strategy, requests.faults)
        return _microseconds(
            latency_study.simulate_latencies(
                strategy, measurement, faults, len(pool), requests.delayed
            )
        )

    def plan(strategy: ServedStrategy) -> dict[str, Any]:
        return {
            "pieces": rivals.pieces_text(strategy.model.pipeline),
            "work": rivals.work_of(strategy.model),
            "hedge_after": strategy.hedge_after,
        }

    study.part(
        "bare",
        lambda: _microseconds(
            latency_study.program_seconds(model, split.images, requests.calm)
        ),
    )
    uncoded, quiet = rivals.uncoded(model), Faults()
    for client in requests.clients:
        name_of = lambda name, kind, client=client: part_name(f"{name}, {kind}", client)
        plain = ServedStrategy(uncoded, client=client)
        usual = measured(name_of("uncoded", "calm"), plain, requests.calm, quiet)
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
        if requests.mds_stages:
            stages = tuple((block, block) for block in requests.mds_stages)
            mds = rivals.per_convolution(model, stages)
            strategies["mds"] = plain._replace(model=mds)
        for name, own in strategies.items():
            calm = measured(name_of(name, "calm"), own, requests.calm, quiet)
            delayed = name_of(name, "delayed")
            measured(delayed, own, requests.delayed, requests.faults)
            make = functools.partial(simulated, own, calm)
            study.part(name_of(name, "simulated"), make)
            study.part(name_of(name, "plan"), functools.partial(plan, own))
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


def _microseconds(seconds: np.ndarray) -> list[float]:
    """Returns seconds that are rounded to microseconds."""
    return np.round(np.asarray(seconds, np.float64), 6).tolist()
