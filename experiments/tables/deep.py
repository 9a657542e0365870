"""Tables of codes on deep networks: how much accuracy they lose, and their price."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from coded_jax.codes import LEARNED, entry_of
from coded_jax.inference.costs import Cost, Round
from coded_jax.report import table
from coded_jax.report.formatting import (
    mean_std,
    network_text,
    percent,
    stages_text,
    with_deviation,
)
from coded_jax.report.table import Columns, Table
from coded_jax.runs.reading import (
    base_accuracy,
    code_name,
    evaluated_part,
    patterns_of,
    read_cost,
)
from tables import stored, targets
from tables.stored import Content, Section

TAILS = {"tuned": "tuned tail", "intact": "tail tuned on exact features"}
WHOLE = "no code: the whole image on each of {} devices, hedged or at once"
COPIES = "no code: copies of each piece on {} devices"
RESENT = "no code: what is missing is sent once more, to a spare device"
SMALLER = "no code: whole network on {}x{}, on the spare device"
EXACT = "costs_of_exact_code"
"""Field of a stored run: the cost of an exact code of every convolution in the blocks
that it codes."""
MEASURES = ("mean", "worst", "decoded", "target")
SAME_CLASS = "same class, %"
BEYOND = "more than r"


class Entry(NamedTuple):
    """A code, or another way to survive losses, on a network with k and r.

    Attributes:
      run: of the network, k and r; for a code that which has tried it.
      name: in tables.
      coded: the blocks that devices compute pieces of, as text.
      cost: of an inference of one image.
      measured: cells by their headings: `1 lost, mean` points below the base model (or
        `worst`, or `decoded` of decoded answers alone), `1 lost, target`, and the part
        of images with the network's class where r results are lost.
      rounds: to the devices and back, as text, if not those of the cost.
      runs: that have tried it; none of what is counted.
    """

    run: Content
    name: str
    coded: str
    cost: Cost
    measured: dict[str, str] = {}
    rounds: str = ""
    runs: tuple[Content, ...] = ()

    def with_r_lost(self, measure: str) -> str:
        """Returns the cell of one of `MEASURES` with r results lost, if it has one."""
        return self.measured.get(f"{self.run['split']['r']} lost, {measure}", "")


def grouped(runs: Iterable[Content]) -> list[list[Content]]:
    """Returns the runs of each network and size of code, in order of both."""
    key = lambda run: (stored.data_of(run), network_of(run), sizes_of(run))
    return [[*group] for _, group in itertools.groupby(sorted(runs, key=key), key)]


def network_of(run: Content) -> str:
    """Returns name and width of a run's network, `vgg16 x 0.5`."""
    return network_text(run["config"]["base_model"], run["config"]["base_width"])


def sizes_of(run: Content) -> tuple[int, int]:
    """Returns k and r."""
    return run["split"]["k"], run["split"]["r"]


def largest_of(runs: Sequence[Content]) -> Content:
    """Returns a run with the largest images, one that codes pieces of these if there is
    one."""
    of_pieces = lambda run: run["config"]["split"] == "image"
    return max(runs, key=lambda run: (math.prod(run["image_shape"]), of_pieces(run)))


def entries(runs: Sequence[Content]) -> list[Entry]:
    """Returns all ways to survive losses on one network with one k and r, by the price
    of the code.

    Beside the codes of the runs and the whole network on smaller images stands what
    loses nothing: the whole image on r + 1 devices, copies of pieces, missing pieces
    sent once more, and exact codes of the convolutions in the same blocks.
    """
    largest = largest_of(runs)
    by_size: dict[tuple, list[Content]] = {}
    for run in runs:
        by_size.setdefault(tuple(run["image_shape"]), []).append(run)
    own = by_size.pop(tuple(largest["image_shape"]))
    codes = [of_run(run, name) for run in own for name in ("code", *run["baselines"])]
    codes += [of_smaller(trials, largest) for trials in by_size.values()]
    cuts = {blocks(run): run for run in own if run["config"]["split"] == "image"}
    devices = largest["split"]["r"] + 1
    whole = read_cost(largest, "code").on_every_device(devices)
    lost = {x for code in codes for x in code.measured if not x.endswith("target")}
    nothing = {x: "0.00" for x in lost if BEYOND not in x} | {SAME_CLASS: "100.0"}
    ways = [Entry(largest, WHOLE.format(devices), "nothing", whole)]
    ways += [way for run in cuts.values() for way in exact_ways(run)]
    exact = [way._replace(measured=nothing) for way in ways]
    return sorted([*codes, *exact], key=lambda x: (round(x.cost.price, 4), x.name))


def exact_ways(run: Content) -> list[Entry]:
    """Returns the ways that lose nothing, with the same blocks as a run that codes
    pieces of the image."""
    k, r = sizes_of(run)
    coded, cost = blocks(run), without_code(run)
    # Where devices that are lost stay so, the first round alone is waited for twice.
    rounds = len(cost.rounds)
    resent = f"{rounds + 1}-{2 * rounds}" if rounds > 1 else "2"
    ways = [
        Entry(run, COPIES.format(r + 1), coded, cost._replace(devices=k * (r + 1))),
        Entry(run, RESENT, coded, cost._replace(devices=k + r), rounds=resent),
    ]
    if EXACT in run:
        moves = ", parity moves" if run["config"]["parity_moves"] else ""
        exact = Cost.from_json(run[EXACT])
        coded = part_text(f"every convolution of {coded}", exact)
        ways.append(Entry(run, f"mds{moves} (counted)", coded, exact))
    return ways


def without_code(run: Content) -> Cost:
    """Returns the cost of a run's data pieces alone: pixels of the image itself are of
    a byte, all else is float32."""
    cost = read_cost(run, "code")
    rounds = []
    for trip, stage in zip(cost.rounds, run["split"]["stages"], strict=True):
        bytes_in = math.prod(stage["piece_shape"]) * (1 if 1 in stage["blocks"] else 4)
        bytes_out = 4 * math.prod(stage["share_shape"])
        rounds.append(Round(trip.device_flops, bytes_in, bytes_out))
    return Cost(tuple(rounds), cost.client_flops, cost.whole, run["split"]["k"])


def of_smaller(trials: Sequence[Content], largest: Content) -> Entry:
    """Returns the whole network on smaller images, of runs that differ in their seed,
    on the spare devices of a run with the images as they are: its answer counts where a
    data piece was lost, else the data pieces' results do. The cost is that of the case
    with more work."""
    k, r = sizes_of(largest)
    measured: dict[str, str] = {}
    worst, deviation = mean_std([base_accuracy(run) for run in trials])
    for lost in range(1, r + 1):
        of_data = 1 - math.comb(r, lost) / math.comb(k + r, lost)
        mean = of_data * worst + (1 - of_data) * base_accuracy(largest)
        accuracy = {"mean": mean, "mean_std": of_data * deviation}
        accuracy |= {"worst": worst, "worst_std": deviation}
        measured |= points_below(largest, accuracy, f"{lost} lost")
    pieces, whole = without_code(largest), read_cost(trials[0], "code").whole
    spare = pieces._replace(rounds=(whole,), client_flops=0.0)
    cost = max(pieces, spare, key=lambda x: x.device_flops + x.client_flops)
    cost = cost._replace(devices=k + r, memory=4 * trials[0]["base"]["numbers"])
    name = SMALLER.format(*trials[0]["image_shape"])
    return Entry(largest, name, blocks(largest), cost, measured, runs=tuple(trials))


def of_run(run: Content, name: str) -> Entry:
    """Returns the code of a run, `code`, or one of its baselines."""
    k, r = sizes_of(run)
    own = name == "code"
    code = run["config"]["code"] if own else name
    summary = run["summary"] if own else run["baselines"][name]
    measured: dict[str, str] = {}
    for lost in summary.keys() - {"0"}:
        within = int(lost) <= r
        key = f"{lost} lost" if within else f"{lost} lost, {BEYOND}"
        shown = ("mean", "worst", "decoded") if within else ("mean", "worst")
        measured |= points_below(run, summary[lost], key, shown)
        for kind, of_codes in run.get("other_stage_losses", {}).items():
            measured |= points_below(run, of_codes[name][lost], f"{key}, {kind}")
        if within and code == LEARNED:
            measured[f"{key}, target"] = targets.deep(run, lost)
    same = [
        pattern["agreement"]
        for pattern in patterns_of(run, code) or ()
        if len(pattern["lost"]) == r and min(pattern["lost"]) < k
    ]
    if same:
        measured[SAME_CLASS] = f"{100 * statistics.fmean(same):.1f}"
    cost, config = read_cost(run, name), run["config"]
    outputs = entry_of(code).trained and config.get("returned") == "outputs"
    parts = [
        code_name(config, code),
        "outputs" * outputs,
        TAILS.get(config.get("tail", ""), ""),
        "parity moves" * bool(config.get("parity_moves")),
        f"groups of {k} images" * (config["split"] == "group"),
    ]
    label, coded = ", ".join(filter(None, parts)), part_text(blocks(run), cost)
    return Entry(run, label, coded, cost, measured, runs=(run,))


def points_below(
    run: Content,
    accuracy: dict[str, float],
    key: str,
    measures: Sequence[str] = ("mean", "worst"),
) -> dict[str, str]:
    """Returns points below the run's base, `0.45 ± 0.03` over seeds, of the measures
    that there are, by headings that begin with the key."""
    cells = {}
    for measure in accuracy.keys() & measures:
        points = 100 * (base_accuracy(run) - accuracy[measure])
        text = with_deviation(points, 100 * accuracy.get(f"{measure}_std", 0.0))
        cells[f"{key}, {measure}"] = text.replace("-0.00", "0.00")
    return cells


def blocks(run: Content) -> str:
    """Returns the blocks that a run codes, as text."""
    config = run["config"]
    if config["split"] == "convolution":
        stages = config["stages"]
        return f"every convolution{f' of {stages_text(stages)}' if stages else ''}"
    if config["split"] == "group":
        return "the whole network"
    return stages_text([stage["blocks"] for stage in run["split"]["stages"]])


def part_text(coded: str, cost: Cost) -> str:
    """Returns coded blocks with the part of the network's work that is theirs."""
    return f"{coded} ({100 * cost.coded_flops / cost.whole_flops:.0f} %)"


NETWORK: Columns = {
    "network": lambda x: network_of(x.run),
    "data": lambda x: stored.data_of(x.run),
    "part": lambda x: evaluated_part(x.run),
    "base, %": lambda x: percent(base_accuracy(x.run)),
    "k": lambda x: str(x.run["split"]["k"]),
    "r": lambda x: str(x.run["split"]["r"]),
}
PRICE: dict[str, Callable[[Entry], str]] = {
    "code": lambda x: x.name,
    "coded": lambda x: x.coded,
    "devices": lambda x: str(x.cost.devices),
    "code's work, %": lambda x: percent(x.cost.price),
    "device": lambda x: f"{x.cost.parts['piece']:.2f}",
    "client": lambda x: f"{x.cost.client_total / x.cost.whole_flops:.2f}",
    "client, a mask for each image": lambda x: (
        f"{(x.cost.client_total + x.cost.second_tail) / x.cost.whole_flops:.2f}"
    ),
    # Speed of the client, in devices, from which on it and a device together need less
    # time than one device for the whole image, without links and stragglers.
    "break-even": lambda x: (
        f"{x.cost.client_total / saved:.2f}"
        if (saved := x.cost.whole_flops - x.cost.device_flops) > 0
        else "-"
    ),
    "kB": lambda x: f"{(x.cost.total.bytes_in + x.cost.total.bytes_out) / 1e3:.1f}",
    "rounds": lambda x: x.rounds or str(len(x.cost.rounds)),
    "memory, kB": lambda x: f"{x.cost.memory / 1e3:.0f}",
}
SHORT: Columns = {
    "network, data": lambda x: f"{network_of(x.run)}, {stored.data_of(x.run)}",
    "k, r": lambda x: "{}, {}".format(*sizes_of(x.run)),
    "base": NETWORK["base, %"],
    "r lost, mean / worst": lambda x: (
        f"{x.with_r_lost('mean')} / {x.with_r_lost('worst')}"
    ),
    "target": lambda x: x.with_r_lost("target"),
    "device + client": lambda x: f"{PRICE['device'](x)} + {PRICE['client'](x)}",
    "rounds": PRICE["rounds"],
    "kB": PRICE["kB"],
}


def columns(found: Sequence[Entry]) -> Columns:
    """Returns columns of the price, and of all that was measured of some entry."""
    headers = {x for entry in found for x, text in entry.measured.items() if text}

    def order(header: str) -> tuple[str, int]:
        lost, _, measure = header.rpartition(", ")
        return lost, MEASURES.index(measure)

    ordered = [*sorted(headers - {SAME_CLASS}, key=order), SAME_CLASS]
    return PRICE | {
        header: lambda x, header=header: x.measured.get(header, "-")
        for header in ordered
    }


def tables(runs: Sequence[Content]) -> list[tuple[str, Table]]:
    """Returns title and table of each network and size of code."""
    made = []
    for group in grouped(runs):
        run, found = largest_of(group), entries(group)
        k, r = sizes_of(run)
        title = (
            f"{network_of(run)} on {stored.data_of(run)}, {evaluated_part(run)} images,"
            f" base {percent(base_accuracy(run))} %, k={k}, r={r}"
        )
        made.append((title, table.make(columns(found), found)))
    return made


def section() -> Section:
    """Returns our code on each network, and a file with everything beside it."""
    contents = stored.read("deep")
    found = [x for group in grouped(contents.values()) for x in entries(group)]
    origin = {
        header: lambda x, of=of: "; ".join(dict.fromkeys(map(of, x.runs))) or "-"
        for header, of in stored.origins().items()
    }
    everything = table.make({**NETWORK, **columns(found), **origin}, found)
    ours = [run for name, run in contents.items() if "_ours_" in name]
    ours = [run for run in ours if run["dataset"] in targets.DEEP_DATA]
    shown = [x for x in found if x.run in ours and x.with_r_lost("target")]
    return stored.section(
        table.make(SHORT, shown),
        "Points below the base; work over that of the whole network.",
        files={"deep.csv": (everything, "code or other way")},
        contents=contents.values(),
    )


SECTIONS: dict[str, Callable[[], Section]] = {"deep": section}
