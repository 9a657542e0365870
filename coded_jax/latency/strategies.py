"""Strategies: every way to compute a CNN on n devices, with its cost and its accuracy.

They are the same for the map, for the choice of a strategy, and for a CNN of which
nothing but its blocks is known. A code that was trained brings the accuracies of its
run; of one that was not, the loss of accuracy is given.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from coded_jax.checks import require
from coded_jax.codes import CodeConfig, erasures
from coded_jax.codes.quorum import ALL_DATA, ANY_K, decodes, one_of_each, quorum_of
from coded_jax.inference.costs import Cost, whole_round
from coded_jax.latency import cuts
from coded_jax.latency.cuts import CNN, Cut
from coded_jax.latency.simulation import Workload
from coded_jax.runs import reading
from coded_jax.runs.config import tuples

ONE, UNCODED, HEDGED = "one machine", "uncoded", "hedged"
WHOLE, REPLICATED = "whole image on each", "replicated"
EXACT, LEARNED = "exact code", "learned code"
FAMILIES = (ONE, UNCODED, HEDGED, WHOLE, REPLICATED, EXACT, LEARNED)
"""Lists the families of strategies, the simplest first."""

CODED = (EXACT, LEARNED)
LATE = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)
"""Gives the delays of hedged strategies in usual times; each is compared."""
CHEAP_DECODERS = ("low_rank", "pointwise")
"""Decoders of a learned code that was not trained, after a linear encoder."""


class Strategy(NamedTuple):
    """A way to compute `F_Conv`.

    Attributes:
      family: one of `FAMILIES`.
      code: its name.
      workload: what it asks of the devices.
      accuracy: float64 `[2^n]`, of each set of results that arrived, at
        `sum(arrived * 2^i)`; NaN for those that were not tried.
      pieces: how an image is cut, as `2x2, stages 1-4 5-6`.
      settings: of `Config`, by which it can be built.
      late: of a hedged one, usual times of a round after which what is missing is sent
        again; None of others.
    """

    family: str
    code: str
    workload: Workload
    accuracy: np.ndarray
    pieces: str = ""
    settings: Mapping[str, Any] = {}
    late: float | None = None

    @property
    def n(self) -> int:
        """Returns the devices that it needs."""
        return self.workload.n

    @property
    def sizes(self) -> tuple[int, int]:
        """Returns k and r; 1 and 0 of the client alone."""
        return max(self.workload.k, 1), self.workload.r

    @property
    def text(self) -> str:
        """Returns its name with its sizes, as `mds, k=4 r=2, 2x2`; with when a hedged
        one sends again."""
        sizes = "k={} r={}".format(*self.sizes) if self.n > 1 else ""
        return ", ".join(
            filter(None, [self.code, sizes, self.pieces, late_text(self.late)])
        )

    def to_json(self) -> dict[str, Any]:
        """Returns it as `map.json` has it."""
        k, r = self.sizes
        own = {"family": self.family, "code": self.code, "k": k, "r": r}
        late = {} if self.late is None else {"late": self.late}
        return {**own, "pieces": self.pieces, **late}


def late_text(late: float | None) -> str:
    """Returns the delay of a second sending, in words, for the name of a strategy."""
    if late is None:
        return ""
    if late == 0:
        return "at once"
    return f"after {late:g} usual time{'s' if late != 1 else ''}"


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
    """
    whole = whole_round(cnn.base, cnn.variables, cnn.image_shape)
    found = _whole_images(Cost((whole,), 0.0, whole, 1), n, cnn.accuracy)
    for k in range(2, n + 1):
        found.extend(without_code(cnn, n, k))
        if k < n:
            found.extend([*_exact(cnn, k, n - k), *_untrained(cnn, k, n - k)])
    distinct: dict[tuple, Strategy] = {}
    for results in runs:
        for name in results.get("recovery", {}):
            try:
                strategy = of_run(results, name)
            except ValueError:  # exact, without parity, or of groups of images
                continue
            if strategy.n <= n:
                key = (strategy.text, strategy.accuracy.tobytes())
                distinct.setdefault(key, strategy)
    return [*found, *distinct.values()]


def _whole_images(cost: Cost, n: int, accuracy: float) -> list[Strategy]:
    """Returns the strategies that cut nothing."""
    of_client = Cost((), cost.whole_flops, cost.whole, 0)
    client = Workload(ALL_DATA, 0, 0, of_client)
    one = Workload(ALL_DATA, 1, 0, cost.on_every_device(1))
    each = Workload(one_of_each(1, n), 1, n - 1, cost.on_every_device(n))
    copies = {"code": "replication", "k": 1, "grid": (1, 1), "r": n - 1}
    return [
        Strategy(ONE, "the client alone", client, np.full(1, accuracy)),
        Strategy(ONE, "one device", one, np.full(2, accuracy)),
        Strategy(WHOLE, WHOLE, each, np.full(2**n, accuracy), settings=copies),
    ]


def without_code(cnn: CNN, n: int, k: int) -> Iterator[Strategy]:
    """Yields uncoded and hedged pieces, and copies of them, of some if not of all.

    Args:
      cnn: the network.
      n: devices; those without a piece of their own are sent the ones that are hedged.
      k: pieces, 2 to n.
    """
    of_stages = cuts.of_stages(cnn, k, 1, code="uncoded")
    of_convolutions = cuts.of_convolutions(cnn, k, 1, code="uncoded")
    for cut in cuts.undominated([*of_stages, *of_convolutions]):
        pieces = Workload(ALL_DATA, k, 0, _without_code(cut.cost, k))
        uncoded = _of_cut(cut, UNCODED, "uncoded", pieces, cnn.accuracy)
        yield uncoded
        spread = dataclasses.replace(pieces, spares=n - k)
        hedged = uncoded._replace(family=HEDGED, code=HEDGED, workload=spread)
        yield from (hedged._replace(late=late) for late in LATE)
        if k < n:
            copies = Workload(one_of_each(k, n), k, n - k, _without_code(cut.cost, n))
            copied = _of_cut(cut, REPLICATED, "replication", copies, cnn.accuracy)
            settings = {**cut.settings, "code": "replication", "r": n - k}
            yield copied._replace(settings=settings)


def _of_cut(
    cut: Cut, family: str, code: str, workload: Workload, accuracy: float | np.ndarray
) -> Strategy:
    """Returns a strategy of a cut, of one accuracy or that of each set of results."""
    accuracies = np.full(2**workload.queries, accuracy)
    words = {"pieces": cut.pieces, "settings": cut.settings}
    return Strategy(family, code, workload, accuracies, **words)


def _without_code(cost: Cost, devices: int) -> Cost:
    """Returns a cost without encoding and decoding, on so many devices."""
    rounds = (trip._replace(encode_flops=0.0, decode_flops=0.0) for trip in cost.rounds)
    return cost._replace(rounds=tuple(rounds), devices=devices)


def _exact(cnn: CNN, k: int, r: int) -> Iterator[Strategy]:
    """Yields the exact codes of every convolution, and of the large ones.

    Sums with small integers are the cheapest that is known, and from more than two of
    them no well-conditioned one.
    """
    code = "addition" if r <= 2 else "mds"
    for cut in cuts.of_convolutions(cnn, k, r, code=code):
        yield _of_cut(cut, EXACT, code, Workload(ANY_K, k, r, cut.cost), cnn.accuracy)


def _untrained(cnn: CNN, k: int, r: int) -> Iterator[Strategy]:
    """Yields learned codes of given loss, with their cheapest networks."""
    if cnn.drop is None:
        return
    all_data = 2**k - 1
    complete = np.arange(2 ** (k + r)) & all_data == all_data
    for decoder in CHEAP_DECODERS:
        networks = {"encoder": "linear", "decoder": decoder, "recipe": "systematic"}
        for cut in cuts.undominated([*cuts.of_stages(cnn, k, r, **networks)]):
            decoded = cnn.accuracy - cnn.drop * len(cut.settings["stages"])
            accuracy = np.where(complete, cnn.accuracy, decoded)
            workload = Workload(ANY_K, k, r, cut.cost)
            yield _of_cut(cut, LEARNED, f"linear / {decoder}", workload, accuracy)


def of_run(results: dict[str, Any], name: str = "code") -> Strategy:
    """Returns a code of a finished run that estimates what is lost.

    Args:
      results: the content of its `results.json`.
      name: `"code"`, or one of the run's baselines.

    Raises:
      ValueError: the run has no such code or does not say what it costs, splits no
        images, or lost other devices in every stage; or the code decodes nothing, or
        loses no accuracy.
    """
    config, split = results["config"], results["split"]
    k, r, code = split["k"], split["r"], config["code"] if name == "code" else name
    cost, rule = reading.read_cost(results, name), results["recovery"][name]
    quorum = quorum_of(rule["suffices"], k, k + r)
    alike = len(split["stages"]) == 1 or config["stage_losses"] == "held"
    patterns = reading.patterns_of(results, code) or []
    accuracy = np.full(2 ** (k + r), np.nan)
    for pattern in patterns:
        arrived = erasures.available(pattern["lost"], k + r)[:, 0]
        accuracy[arrived @ 2 ** np.arange(k + r)] = pattern["accuracy"]
    # Of any k results; an exact code loses no more than rounding.
    enough = accuracy[np.bitwise_count(np.arange(2 ** (k + r))) >= k]
    least = results["base"]["test_accuracy"] - reading.ROUNDING
    estimates = decodes(quorum) and np.nanmin(enough, initial=np.inf) < least
    accepted = "one of single images that estimates, with the same losses in each stage"
    fits = config["split"] != "group" and alike and estimates
    require("name", name, bool(fits), f"{accepted},")
    pieces = cuts.pieces_text(split["grid"], config["stages"] or ())
    if config["split"] == "convolution":
        pieces = pieces.replace("stages", "convolutions of blocks")
    fields = [field.name for field in dataclasses.fields(CodeConfig)]
    settings = {field: tuples(config[field]) for field in fields if field in config}
    return Strategy(
        LEARNED,
        code=reading.code_name(config, code),
        workload=Workload(quorum, k, r, cost, systematic=rule["systematic"]),
        accuracy=accuracy,
        pieces=pieces,
        settings={**settings, "code": code},
    )
