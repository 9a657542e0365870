"""Strategies: every way to compute a CNN on n devices, with its cost and its accuracy.

They are the same for the map, for the choice of a strategy, and for a CNN of which
nothing but its blocks is known. A code that was trained brings the accuracies of its
run; of one that was not, the loss of accuracy is given.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from coded_jax.checks import first_line, require, require_form
from coded_jax.codes import CodeConfig
from coded_jax.codes.quorum import ALL_DATA, ANY_K, decodes, one_of_each, quorum_of
from coded_jax.inference.costs import Cost, cost_of, whole_round
from coded_jax.latency import simulation
from coded_jax.latency.partitions import Stages, grid_of, partitions
from coded_jax.latency.workloads import Workload
from coded_jax.runs.build import build_pipeline
from coded_jax.runs.config import OWN, Config, tuples
from coded_jax.runs.reading import (
    ROUNDING,
    code_name,
    patterns_of,
    read_cost,
    read_recovery,
)
from coded_jax.splitting.convolutions import rounded_down, spared_parts
from coded_jax.types import BaseModel, PyTree

ONE, UNCODED, HEDGED = "one machine", "uncoded", "hedged"
WHOLE, REPLICATED = "whole image on each", "replicated"
EXACT, LEARNED = "exact code", "learned code"
FAMILIES = (ONE, UNCODED, HEDGED, WHOLE, REPLICATED, EXACT, LEARNED)
"""Lists the families of strategies, the simplest first."""

CODED = (EXACT, LEARNED)
LATE = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)
"""Gives the delays of hedged strategies in usual times; each is compared."""
SENT = (1.0, 3 / 4, 1 / 2, 1 / 3, 1 / 4)
"""Gives how many of a network's convolutions are cut by themselves, those that spare a
device the most; each is compared."""
EVERY = "every convolution"
CHEAP_DECODERS = ("low_rank", "pointwise")
"""Decoders of a learned code that was not trained, after a linear encoder."""


class Strategy(NamedTuple):
    """A way to compute `F_Conv`.

    Attributes:
      family: one of `FAMILIES`.
      code: its name.
      workload: what it asks of the devices; None where the client computes everything.
      accuracy: float64 `[2^n]`, of each set of results that arrived, at
        `sum(arrived * 2^i)`; NaN for those that were not tried.
      pieces: how an image is cut, as `2x2, stages 1-4 5-6`.
      settings: of `Config`, by which it can be built.
      late: of a hedged one, usual times of a round after which what is missing is sent
        again.
      after: of a hedged one, the seconds instead; None for usual times.
    """

    family: str
    code: str
    workload: Workload | None
    accuracy: np.ndarray
    pieces: str = ""
    settings: Mapping[str, Any] = {}
    late: float = 2.0
    after: float | None = None

    @property
    def n(self) -> int:
        """Returns the devices that it needs."""
        return self.workload.n if self.workload else 0

    @property
    def sizes(self) -> tuple[int, int]:
        """Returns k and r."""
        return (self.workload.k, self.workload.r) if self.workload else (1, 0)

    @property
    def text(self) -> str:
        """Returns its name with its sizes, as `mds, k=4 r=2, 2x2`."""
        sizes = "k={} r={}".format(*self.sizes) if self.n > 1 else ""
        return ", ".join(filter(None, [self.code, sizes, self.pieces, self.delay]))

    @property
    def delay(self) -> str:
        """Returns the delay of a hedged strategy's second sending, in words; an empty
        text for other strategies."""
        if self.family != HEDGED:
            return ""
        if self.after is None:
            return late_text(self.late)
        return f"after {1e3 * self.after:g} ms"


def late_text(late: float) -> str:
    """Returns the delay of a second sending, in words, for the name of a strategy."""
    if late == 0:
        return "at once"
    return f"after {late:g} usual time{'s' if late != 1 else ''}"


class CNN(NamedTuple):
    """A CNN whose strategies are compared; no values of its variables are needed.

    Attributes:
      base: its blocks.
      variables: shapes and dtypes, as of `runs.build.variable_shapes`.
      image_shape: `(H, W, C)`.
      accuracy: of the network itself, in [0, 1].
      drop: accuracy that an answer loses in each coded stage where a learned code
        decodes something; None for no learned codes but those of runs.
      stages: of learned codes; those of `partitions` if None.
    """

    base: BaseModel
    variables: PyTree
    image_shape: tuple[int, int, int]
    accuracy: float = 1.0
    drop: float | None = None
    stages: Stages | None = None


class Cut(NamedTuple):
    """An image cut into pieces for some stages, and what a code of it costs; where it
    has no stages, the inputs of convolutions are cut."""

    grid: tuple[int, int]
    stages: Stages
    cost: Cost
    settings: Mapping[str, Any] = {}

    @property
    def text(self) -> str:
        """Returns pieces and stages, as `2x2, stages 1-4 5-6`."""
        if not self.stages:
            rounds, least = len(self.cost.rounds), self.settings["least_spared"]
            some = f"{rounds} round{'s' if rounds > 1 else ''} (least_spared={least:g})"
            return some if least else EVERY
        stages = " ".join(f"{a}-{b}" if a < b else f"{a}" for a, b in self.stages)
        return f"{self.grid[0]}x{self.grid[1]}, stages {stages}"

    def strategy(
        self, family: str, code: str, workload: Workload, accuracy: float | np.ndarray
    ) -> Strategy:
        """Returns a strategy of this cut, of one accuracy or that of each set."""
        accuracies = np.full(2**workload.queries, accuracy)
        return Strategy(family, code, workload, accuracies, self.text, self.settings)

    @property
    def merits(self) -> tuple[float, ...]:
        """Returns work and bytes of a device, rounds, and work of the client."""
        moved = self.cost.bytes_in + self.cost.bytes_out
        rounds = len(self.cost.rounds)
        return self.cost.device_flops, moved, rounds, self.cost.client_total


def strategies(cnn: CNN, n: int, runs: Iterable[dict[str, Any]] = ()) -> list[Strategy]:
    """Returns all strategies on n devices or fewer.

    Those without a code: the client by itself, a device by itself, the whole image on
    every device; k pieces uncoded and hedged, of k = 2 to n; k pieces in n / k copies.
    Exact codes of every convolution, or of the large ones, have all k + r = n. Learned
    ones are those of the runs, and likewise with k + r = n where `cnn.drop` says what
    they lose.

    Args:
      cnn: the network.
      n: devices, 2 to 11.
      runs: the contents of `results.json` of finished runs, of the same network.

    Raises:
      ValueError: `n` is out of range.
    """
    require("n", n, 2 <= n <= 11, "2..11")
    whole = whole_round(cnn.base, cnn.variables, cnn.image_shape)
    made = whole_images(Cost((whole,), 0.0, whole, 1), n, cnn.accuracy)
    for k in range(2, n + 1):
        made += without_code(cnn, n, k)
        if k < n:
            made += _exact(cnn, k, n - k)
            made += _untrained(cnn, k, n - k)
    # Of the codes of runs those that estimate what is lost, each once.
    distinct: dict[tuple, Strategy] = {}
    for strategy in _of_runs(runs):
        if strategy.family == LEARNED and strategy.n <= n:
            key = (strategy.text, strategy.accuracy.tobytes())
            distinct.setdefault(key, strategy)
    return made + [*distinct.values()]


def whole_images(cost: Cost, n: int, accuracy: float) -> list[Strategy]:
    """Returns the strategies that cut nothing.

    Args:
      cost: of any strategy on the network.
      n: devices.
      accuracy: of the network.
    """
    one = Workload(ALL_DATA, 1, 0, cost.on_every_device(1))
    every = Workload(one_of_each(1, n), 1, n - 1, cost.on_every_device(n))
    copies = {"code": "replication", "k": 1, "grid": (1, 1), "r": n - 1}
    return [
        Strategy(ONE, "the client alone", None, np.full(1, accuracy)),
        Strategy(ONE, "one device", one, np.full(2, accuracy)),
        Strategy(WHOLE, WHOLE, every, np.full(2**n, accuracy), settings=copies),
    ]


def without_code(cnn: CNN, n: int, k: int) -> Iterator[Strategy]:
    """Yields uncoded and hedged pieces, and copies of them, of some if not of all.

    Args:
      cnn: the network.
      n: devices; those without a piece of their own are sent the ones that are hedged.
      k: pieces, 2 to n.
    """
    stages = _cuts(cnn, k, 1, code="uncoded")
    for cut in _undominated([*stages, *_convolutions(cnn, k, 1, code="uncoded")]):
        plain = Workload(ALL_DATA, k, 0, _without_code(cut.cost, k))
        uncoded = cut.strategy(UNCODED, "uncoded", plain, cnn.accuracy)
        yield uncoded
        yield from _hedged(uncoded, n - k)
        if k < n:
            copied = Workload(one_of_each(k, n), k, n - k, _without_code(cut.cost, n))
            settings = {**cut.settings, "code": "replication", "r": n - k}
            copies = cut.strategy(REPLICATED, "replication", copied, cnn.accuracy)
            yield copies._replace(settings=settings)


def _hedged(uncoded: Strategy, spares: int) -> list[Strategy]:
    """Returns hedged pieces for those that are waited for, one for each delay."""
    assert uncoded.workload is not None  # there are pieces
    workload = dataclasses.replace(uncoded.workload, spares=spares)
    hedged = uncoded._replace(family=HEDGED, code=HEDGED, workload=workload)
    return [hedged._replace(late=late) for late in LATE]


def hedged_after(compared: Iterable[Strategy], seconds: float) -> list[Strategy]:
    """Returns strategies whose hedged pieces are all sent again after so many seconds.

    Args:
      compared: hedged pieces once for each of `LATE`, and others.
      seconds: from sending.

    Raises:
      ValueError: it is below 0 or infinite.
    """
    require("hedge_after", seconds, 0 <= seconds < math.inf, "0 or more")
    return [
        strategy._replace(after=seconds) if strategy.family == HEDGED else strategy
        for strategy in compared
        if strategy.family != HEDGED or strategy.late == LATE[0]
    ]


def _exact(cnn: CNN, k: int, r: int) -> Iterator[Strategy]:
    """Yields the exact codes of every convolution, and of the large ones.

    Sums with small integers are the cheapest that is known, and from more than two of
    them no well-conditioned one.
    """
    code = "addition" if r <= 2 else "mds"
    for cut in _convolutions(cnn, k, r, code=code):
        yield cut.strategy(EXACT, code, Workload(ANY_K, k, r, cut.cost), cnn.accuracy)


def _untrained(cnn: CNN, k: int, r: int) -> Iterator[Strategy]:
    """Yields learned codes of given loss, with their cheapest networks."""
    if cnn.drop is None:
        return
    all_data = 2**k - 1
    complete = np.arange(2 ** (k + r)) & all_data == all_data
    for decoder in CHEAP_DECODERS:
        networks = {"encoder": "linear", "decoder": decoder, "recipe": "systematic"}
        for cut in _undominated(_cuts(cnn, k, r, stages=cnn.stages, **networks)):
            decoded = cnn.accuracy - cnn.drop * len(cut.stages)
            accuracy = np.where(complete, cnn.accuracy, decoded)
            workload = Workload(ANY_K, k, r, cut.cost)
            yield cut.strategy(LEARNED, f"linear / {decoder}", workload, accuracy)


def _of_runs(runs: Iterable[dict[str, Any]]) -> Iterator[Strategy]:
    """Yields the codes of runs that can be compared, each hedged, too, where its pieces
    are waited for."""
    for results in runs:
        for name in results["costs"]:
            try:
                strategy = of_run(results, name)
            except ValueError:  # without parity, or of groups of images
                continue
            yield strategy
            if strategy.family == UNCODED:
                yield from _hedged(strategy, results["split"]["r"])


def all_of_runs(runs: Iterable[dict[str, Any]]) -> list[Strategy]:
    """Returns all codes of runs that can be compared, each once; pieces that are waited
    for are there hedged, too.

    Args:
      runs: the contents of `results.json` of finished runs.

    Raises:
      ValueError: there is none.
    """
    distinct: dict[tuple, Strategy] = {}
    for strategy in _of_runs(runs):
        distinct.setdefault((strategy.text, strategy.workload), strategy)
    if not distinct:
        raise ValueError("runs: with no code to choose given, one or more accepted")
    return list(distinct.values())


def of_run(results: dict[str, Any], name: str = "code") -> Strategy:
    """Returns a code of a finished run.

    Args:
      results: the content of its `results.json`.
      name: `"code"`, or one of the run's baselines.

    Raises:
      ValueError: the run has no such code or does not say what it costs, splits no
        images, or lost other devices in every stage; or the code has no parity, yet
        answers always.
    """
    config, split = results["config"], results["split"]
    require(
        "split", config["split"], config["split"] != "group", "image or convolution"
    )
    losses = config["stage_losses"]
    require(
        "stage_losses", losses, len(split["stages"]) == 1 or losses == "held", "held"
    )
    k, r, code = split["k"], split["r"], config["code"] if name == "code" else name
    cost, rule = read_cost(results, name), read_recovery(results, name)
    quorum = quorum_of(rule.suffices, k, k + r)
    # Without parity no number of results ends the wait of a code that answers always.
    ends = quorum != ALL_DATA or not rule.answers_always
    patterns = patterns_of(results, code) or []
    accepted = "a code with parity, whose patterns this run has kept"
    require("name", name, ends and len(patterns) > 0, accepted)
    accuracy = simulation.accuracy_table(patterns, k + r)
    if quorum == ALL_DATA:
        # Its parity pieces are blank: nobody sends them, nor waits for them.
        r, accuracy = 0, np.r_[np.full(2**k - 1, np.nan), accuracy[-1]]
        family = UNCODED
    elif not decodes(quorum):
        family = REPLICATED
    else:  # an exact one never loses accuracy
        sizes = np.bitwise_count(np.arange(len(accuracy)))
        enough = accuracy[sizes >= np.min(sizes[~np.isnan(accuracy)])]
        base = results["base"]["test_accuracy"]
        family = EXACT if np.nanmin(enough) >= base - ROUNDING else LEARNED
    if not decodes(quorum):
        cost = _without_code(cost, k + r)
    stages = tuple(map(tuple, config["stages"] or ()))
    pieces = "x".join(map(str, split["grid"]))
    if stages:
        pieces = Cut(tuple(split["grid"]), stages, cost).text
    if stages and config["split"] == "convolution":
        pieces = pieces.replace("stages", "convolutions of blocks")
    fields = [field.name for field in dataclasses.fields(CodeConfig)]
    settings = {field: tuples(config[field]) for field in fields if field in config}
    return Strategy(
        family,
        code=code_name(config, code),
        workload=Workload(quorum, k, r, cost, systematic=rule.systematic),
        accuracy=accuracy,
        pieces=pieces,
        settings={**settings, "code": code},
    )


def _without_code(cost: Cost, devices: int) -> Cost:
    """Returns a cost without encoding and decoding, on so many devices."""
    rounds = (trip._replace(encode_flops=0.0, decode_flops=0.0) for trip in cost.rounds)
    return cost._replace(rounds=tuple(rounds), devices=devices)


def _cuts(
    cnn: CNN, k: int, r: int, stages: Stages | None = None, **settings: Any
) -> list[Cut]:
    """Returns cuts into stages of k pieces.

    Args:
      cnn: the network.
      k, r: data and parity pieces.
      stages: see `CNN`.
      settings: of the code, as of `Config`.
    """
    grid, cuts, chains = grid_of(k), [], [stages] if stages else None
    for chain in chains or partitions(cnn.base, cnn.variables, cnn.image_shape, grid):
        own = {**settings, "k": k, "r": r, "grid": grid, "stages": chain}
        try:
            cuts.append(Cut(grid, chain, _cost(cnn, own), own))
        except ValueError:  # the features have not so many rows or columns
            continue
    return cuts


def _convolutions(cnn: CNN, k: int, r: int, **settings: Any) -> list[Cut]:
    """Returns the cut of every convolution, and those of the large ones alone; none if
    no convolution has k pieces."""
    spared = spared_parts(cnn.base.f_conv, cnn.variables, cnn.image_shape, k)
    if not spared:
        return []
    limits = [rounded_down(spared[math.ceil(part * len(spared)) - 1]) for part in SENT]
    by_rounds: dict[int, float] = {}
    for limit in (0.0, *limits[1:]):
        by_rounds.setdefault(sum(x >= limit for x in spared), limit)
    cuts = []
    for limit in by_rounds.values():
        sizes = {"k": k, "r": r, "split": "convolution", "least_spared": limit}
        own = {**settings, **sizes}
        cuts.append(Cut(grid_of(k), (), _cost(cnn, own), own))
    return cuts


def _undominated(cuts: list[Cut]) -> list[Cut]:
    """Returns the cuts but those that are worse than another in all of work, bytes,
    rounds and the client's work."""

    def dominates(one: Cut, other: Cut) -> bool:
        pairs = zip(one.merits, other.merits, strict=True)
        return one.merits != other.merits and all(a <= b for a, b in pairs)

    return [cut for cut in cuts if not any(dominates(x, cut) for x in cuts)]


def _cost(cnn: CNN, settings: Mapping[str, Any]) -> Cost:
    """Returns the cost of a code on a network whose images come as bytes."""
    config = Config(dataset=OWN, base_model=OWN, baselines=(), **settings)
    middle = (0.5,) * cnn.image_shape[-1]
    pipeline = build_pipeline(
        config, cnn.image_shape, 10, middle, middle, base=cnn.base
    )
    return cost_of(pipeline, cnn.variables, cnn.image_shape)


def cnn_of(
    base: BaseModel,
    variables: PyTree,
    image_shape: tuple[int, int, int],
    **fields: Any,
) -> CNN:
    """Returns a CNN whose blocks are traced once for each size, not for each strategy.

    Args:
      base: its blocks.
      variables: arrays or shapes (`jax.ShapeDtypeStruct`).
      image_shape: `(H, W, C)`.
      fields: the others of `CNN`.

    Raises:
      ValueError: the blocks do not take such images.
    """
    shapes = jax.eval_shape(lambda leaves: leaves, variables)
    zeros = lambda leaf: jnp.zeros(leaf.shape, leaf.dtype)
    traced = base._replace(
        init=lambda key, image, classes: jax.tree.map(zeros, shapes),
        blocks=tuple(map(jax.jit, base.blocks)),
    )
    results = [jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)]
    try:
        for block in traced.blocks:
            results.append(jax.eval_shape(block, shapes, results[-1]))
    except Exception as error:  # a function of the user's raises anything
        raise ValueError(
            f"image_shape: {tuple(image_shape)} given, one that the CNN takes accepted "
            f"({first_line(error)})"
        ) from error
    features = results[-1]
    is_map = len(getattr(features, "shape", ())) == 4
    require_form("blocks", features, is_map, "features [B, M*, M'*, D]")
    enough = all(array.size for array in jax.tree.leaves(results))
    require("image_shape", tuple(image_shape), enough, "one that leaves features")
    return CNN(traced, shapes, image_shape, **fields)
