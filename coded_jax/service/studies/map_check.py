"""Points of the map on real workers: whether the simulator names the right strategy.

At a point the strategies are simulated; the best of each of the fastest families, in
the median and at p99, is then measured, request by request, on workers that stand for
the machines of the point (`pace`), and simulated on the same draws. What the client
needs for a message is not slowed: it is measured before, and the simulator is told.
"""

from __future__ import annotations

import contextlib
import glob
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from coded_jax.latency import comparison, simulation
from coded_jax.latency.cuts import CNN, pipeline_of
from coded_jax.latency.machines import Conditions
from coded_jax.latency.strategies import Strategy, strategies, without_code
from coded_jax.models import make_base_model
from coded_jax.runs.build import variable_shapes
from coded_jax.runs.coded_model import CodedModel
from coded_jax.runs.config import tuples
from coded_jax.service.config import ServeConfig
from coded_jax.service.faults import inject
from coded_jax.service.pool import Pool
from coded_jax.service.start import ENGINES
from coded_jax.service.studies.pace import Pace, PacedFirstK, send_one_by_one

QUANTILES = ("p50", "p99")
KEY = jax.random.key(26)
LIMIT = 60.0  # seconds, after which a request is lost
PATIENCE = 600.0  # seconds of a worker's silence
SLOW = 1e7  # operations/s of machines on which messages are measured


class Point(NamedTuple):
    """A point of the map.

    Attributes:
      name: of it.
      base_model, width, image_shape: the network.
      n: devices.
      margin: that the expected accuracy of a strategy may be below the network's.
      conditions: that its requests meet.
      runs: paths of `results.json`, whose learned codes are compared; patterns of them.
      drop: that an answer of an untrained learned code loses; None for none of these.
    """

    name: str
    base_model: str
    width: float
    image_shape: tuple[int, int, int]
    n: int
    margin: float
    conditions: Conditions
    runs: tuple[str, ...] = ()
    drop: float | None = None


def point_of(record: Mapping[str, Any]) -> Point:
    """Returns a point that is described as JSON.

    Args:
      record: the fields of `Point`; `conditions` has those of `Conditions`.

    Raises:
      ValueError: a value is out of range.
    """
    fields = {name: tuples(value) for name, value in record.items()}
    conditions = {name: tuples(x) for name, x in record["conditions"].items()}
    return Point(**{**fields, "conditions": Conditions(**conditions)})


def contenders(point: Point, families: int) -> dict[str, Strategy]:
    """Returns the best strategies of the fastest families, for each of `QUANTILES`.

    They are those that are accurate enough and use several devices.

    Args:
      point: of the map.
      families: how many for a quantile, at most.

    Returns:
      By the family's name; where its best at another quantile is another one, that by
      the family's name and the quantile, as `hedged (p99)`.
    """
    runs = [
        json.loads(Path(path).read_text())
        for pattern in point.runs
        for path in sorted(glob.glob(pattern))
    ]
    accuracy = runs[0]["base"]["test_accuracy"] if runs else 1.0
    cnn = _cnn(point, accuracy=accuracy, drop=point.drop)
    on_devices = [s for s in strategies(cnn, point.n, runs) if s.n > 1]
    machine = point.conditions.machine(on_devices[0].workload.cost.whole_flops)
    places = comparison.shortlist(on_devices, machine)
    rows = comparison.forecasts(KEY, on_devices, machine, places=places)
    found: dict[str, Strategy] = {}
    for quantile in QUANTILES:
        best = comparison.fastest(rows, quantile, accuracy - point.margin)
        for family, row in [*best.items()][:families]:
            strategy = row.strategy
            if not any(strategy is other for other in found.values()):
                name = f"{family} ({quantile})" if family in found else family
                found[name] = strategy
    return found


def _cnn(point: Point, **fields: Any) -> CNN:
    base = make_base_model(point.base_model, point.width)
    variables = variable_shapes(base, point.image_shape, 10)
    return CNN(base, variables, point.image_shape, **fields)


@contextlib.contextmanager
def _workers(
    point: Point, strategy: Strategy, engine: str
) -> Iterator[tuple[Pool, CodedModel]]:
    """Starts workers for a strategy, and yields it as a model that they can compute.

    Its codes are untrained, and the network's variables random: what comes out is
    wrong, and takes as long as if it were right.
    """
    cnn = _cnn(point)
    pipeline = pipeline_of(cnn, strategy.settings)
    variables = cnn.base.init(jax.random.key(0), point.image_shape, 10)
    model = CodedModel(pipeline, variables, pipeline.init(jax.random.key(0)))
    # The spares of hedged pieces are workers, too.
    spares = max(strategy.workload.n - pipeline.n, 0)
    workers = ENGINES[engine].workers(model, ServeConfig(batches=(1,), spares=spares))
    with contextlib.closing(Pool(workers, ServeConfig(patience=PATIENCE))) as pool:
        yield pool, model


def measure_point(
    point: Point,
    strategy: Strategy,
    engine: str,
    requests: int,
    ended: Callable[[int], None] = lambda number: None,
) -> dict[str, list[float]]:
    """Sends requests of one image each, one at a time, and simulates the same ones.

    Args:
      point: of the map.
      strategy: with its hedges, as of `contenders`.
      engine: a name of `ENGINES`, of one with workers.
      requests: R.
      ended: called with the number of each request when it is over.

    Returns:
      `measured` and `simulated`, R seconds each, infinite for lost requests.
    """
    workload = strategy.workload
    machine = point.conditions.machine(workload.cost.whole_flops)
    shape = (requests, *point.image_shape)
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    with _workers(point, strategy, engine) as (pool, model):
        n = len(pool)
        pace = Pace(machine, workload.cost, KEY, n, requests)
        inject(pool, pace)
        paced = PacedFirstK(
            model, pool, workload.cost, machine.client, workload.hedge_after
        )

        def over(number: int) -> None:
            pace.end(number)
            ended(number)

        others = range(workload.n, n)  # workers of the pool that no device stands for
        measured, _ = send_one_by_one(paced, images, LIMIT, others, over)
    (simulated,) = simulation.simulate(KEY, n, requests, machine, [workload])
    return {
        "measured": measured.tolist(),
        "simulated": np.round(simulated.seconds, 6).astype(float).tolist(),
    }


def message_seconds(
    engine: str,
    requests: int,
    ended: Callable[[int], None] = lambda number: None,
) -> float:
    """Measures what this machine's client needs for a message.

    That is what requests of six pieces take longer in the median than they would
    without messages, for each message: in the simulator a round of n pieces takes n + 1
    where nobody is slow. They are the 13 rounds of a small VGG-16, so that what the
    client does once a request counts little, on machines that are slow enough to hide
    what the workers really compute.

    Args:
      engine: a name of `ENGINES`, of one with workers.
      requests: of one image each.
      ended: called with the number of each request when it is over.
    """
    no_matter = {"bandwidth": 1e15, "client": 1e9}
    none = dict.fromkeys(("link", "message", "tail", "failure"), 0.0)
    slow = Conditions(speed=SLOW, **no_matter, **none)
    shape = (28, 28, 1)
    point = Point("message", "vgg16", 0.125, shape, n=6, margin=0.0, conditions=slow)
    rounds = lambda strategy: len(strategy.workload.cost.rounds)
    every = max(without_code(_cnn(point), 6, 6), key=rounds)
    seconds = measure_point(point, every, engine, requests, ended)
    longer = np.median(seconds["measured"]) - np.median(seconds["simulated"])
    return float(longer) / (rounds(every) * (every.n + 1))
