"""Tables of codes on deep networks: how much accuracy they lose, and their price."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from coded_jax.codes import LEARNED, entry_of, erasures
from coded_jax.inference.costs import Cost
from coded_jax.report import table
from coded_jax.report.formatting import stages_text, with_deviation
from coded_jax.report.table import Column, Table
from coded_jax.runs.reading import (
    base_accuracy,
    code_name,
    evaluated_part,
    patterns_of,
)
from coded_jax.runs.run_costs import read_cost
from tables import sections, stored, targets
from tables.sections import Section

ENDS = {"tuned": "tuned tail", "intact": "tail tuned on exact features"}
WHOLE = "no code: the whole image on each of {} devices, hedged or at once"
COPIES = "no code: copies of each piece on {} devices"
RESENT = "no code: what is missing is sent once more, to a spare device"
SMALLER = "no code: whole network on {}, on the spare device"
EXACT = "costs_of_exact_code"
"""Field of a stored run: the cost of an exact code of every convolution in the blocks
that it codes."""

Content = dict[str, Any]


class Price(NamedTuple):
    """The price of one inference of one image, with or without a code.

    Attributes:
      coded: the blocks that devices compute pieces of, as text.
      devices: that take part, or stand by.
      work: of encoding and decoding, over that of the coded blocks.
      device, client: work of the busiest device, and all of the client, over that of
        the whole `F_Conv`.
      bytes: that the busiest device receives and returns.
      rounds: to the devices and back, as text.
      memory: bytes beside the network.
      second_tail: work of the client that is added if each image has a mask of its own.
    """

    coded: str
    devices: int
    work: float
    device: float
    client: float
    bytes: float
    rounds: str
    memory: float = 0.0
    second_tail: float = 0.0

    @property
    def break_even(self) -> float | None:
        """Returns the speed of the client, in devices, from which on it and a device
        together need less time than one device for the whole image, without links and
        stragglers; None if no speed suffices."""
        return self.client / (1 - self.device) if self.device < 1 else None


class Entry(NamedTuple):
    """A code, or another way to survive losses, on a network with k and r.

    Attributes:
      run: of the network, k and r; for a code that which has tried it.
      name: in tables.
      price: of an inference.
      losses: `{"1 lost": (mean, worst)}`, points below the base model as text.
      decoded: `{"1 lost": points}` of decoded answers alone.
      target: `{"1 lost": text}`.
      same: part of images with the network's class where r are lost; None if unknown.
      runs: that have tried it; none of what is counted.
    """

    run: Content
    name: str
    price: Price
    losses: dict[str, tuple[str, str]]
    decoded: dict[str, str] = {}
    target: dict[str, str] = {}
    same: float | None = None
    runs: tuple[Content, ...] = ()


def grouped(runs: Sequence[Content]) -> list[list[Content]]:
    """Returns the runs of each network and size of code, in order of both."""
    key = lambda run: (stored.data_of(run), *network_of(run), *sizes_of(run))
    ordered = sorted(runs, key=key)
    return [[*group] for _, group in itertools.groupby(ordered, key)]


def network_of(run: Content) -> tuple[str, float]:
    """Returns name and width of a run's network."""
    return run["config"]["base_model"], run["config"]["base_width"]


def sizes_of(run: Content) -> tuple[int, int]:
    """Returns k and r."""
    return run["split"]["k"], run["split"]["r"]


def largest_of(runs: Sequence[Content]) -> tuple[Content, list[list[Content]]]:
    """Returns a run with the largest images, one that codes pieces of these if there is
    one, and the runs with smaller images: a list for each size, of seeds."""
    pixels = lambda run: math.prod(run.get("image_shape", ()))
    rank = lambda run: (pixels(run), run["config"]["split"] == "image")
    largest = max(runs, key=rank)
    sizes: dict[tuple, list[Content]] = {}
    for run in runs:
        if pixels(run) < pixels(largest):
            sizes.setdefault(tuple(run["image_shape"]), []).append(run)
    return largest, [*sizes.values()]


def cuts_of(runs: Sequence[Content]) -> list[Content]:
    """Returns a run for each choice of blocks that is coded by pieces of the largest
    images."""
    smaller = [*itertools.chain(*largest_of(runs)[1])]
    of_images = [
        run for run in runs if run["config"]["split"] == "image" and run not in smaller
    ]
    return [*{blocks(run): run for run in of_images}.values()]


def entries(runs: Sequence[Content]) -> list[Entry]:
    """Returns all ways to survive losses on one network with one k and r, by the price
    of the code.

    Beside the codes of the runs and the whole network on smaller images stands what
    loses nothing: the whole image on r + 1 devices, copies of pieces, missing pieces
    sent once more, and exact codes of the convolutions in the same blocks.
    """
    largest, smaller = largest_of(runs)
    apart = [*itertools.chain(*smaller)]
    codes = [
        of_run(run, name) for run in runs if run not in apart for name in codes_of(run)
    ]
    codes += [of_smaller(trials, largest) for trials in smaller]
    lossless = [(WHOLE.format(largest["split"]["r"] + 1), whole_price(largest))]
    has_exact = [run["config"].get("stages") for run in runs if by_convolutions(run)]
    for cut in cuts_of(runs):
        lossless += exact_prices(cut, cut["config"].get("stages") not in has_exact)
    lost = {key for code in codes for key in code.losses if "more than r" not in key}
    decoded = {key for code in codes for key in code.decoded}
    nothing = {key: ("0.00", "0.00") for key in lost}
    exact = [
        Entry(largest, name, price, nothing, dict.fromkeys(decoded, "0.00"), {}, 1.0)
        for name, price in lossless
    ]
    return sorted([*codes, *exact], key=lambda x: (round(x.price.work, 4), x.name))


def exact_prices(run: Content, counted: bool) -> list[tuple[str, Price]]:
    """Returns names and prices of the ways that lose nothing, with the same blocks as a
    run that codes pieces.

    Args:
      run: that codes pieces of the image.
      counted: whether the exact code of convolutions is counted, since no run has it.
    """
    k, r = sizes_of(run)
    parts, stages = read_cost(run, "code").parts, run["split"]["stages"]
    work, moved = (0.0, parts["piece"], parts["uncoded"]), shares_bytes(run)
    rounds = len(stages)
    copies = Price(blocks(run), k * (r + 1), *work, moved, str(rounds))
    # Where devices that are lost stay so, the first round alone is waited for twice.
    most = f"-{2 * rounds}" if rounds > 1 else ""
    resent = copies._replace(devices=k + r, rounds=f"{rounds + 1}{most}")
    found = [(COPIES.format(r + 1), copies), (RESENT, resent)]
    if counted and EXACT in run:
        coded = f"every convolution of {blocks(run)}"
        moving = ", parity moves" if run["config"]["parity_moves"] else ""
        price = price_of(coded, Cost.from_json(run[EXACT]))
        found.append((f"mds{moving} (counted)", price))
    return found


def shares_bytes(run: Content) -> int:
    """Returns the bytes to and from a device that returns its shares alone: pixels of
    the image itself are of a byte, all else is float32."""
    return sum(
        math.prod(stage["piece_shape"]) * (1 if stage["blocks"][0] == 1 else 4)
        + 4 * math.prod(stage["share_shape"])
        for stage in run["split"]["stages"]
    )


def whole_price(run: Content) -> Price:
    """Returns the price of the whole image on each of r + 1 devices."""
    whole = read_cost(run, "code").whole
    moved = whole.bytes_in + whole.bytes_out
    return Price("nothing", run["split"]["r"] + 1, 0.0, 1.0, 0.0, moved, "1")


def price_of(coded: str, cost: Cost) -> Price:
    """Returns the price of a code where r results are lost."""
    parts = cost.parts
    return Price(
        f"{coded} ({100 * cost.coded_flops / cost.whole_flops:.0f} %)",
        cost.devices,
        cost.price,
        parts["piece"],
        parts["encode"] + parts["decode"] + parts["uncoded"],
        cost.bytes_in + cost.bytes_out,
        str(len(cost.rounds)),
        cost.memory,
        cost.second_tail / cost.whole_flops,
    )


def smaller_price(run: Content, largest: Content) -> Price:
    """Returns the price of the whole network on smaller images on the spare devices:
    its answer counts where a data piece was lost, else the data pieces' results do.
    Work is that of the case with more of it, bytes those of the busiest device."""
    k, r = sizes_of(run)
    cost, own = read_cost(largest, "code"), read_cost(run, "code")
    work, parts = own.whole_flops / cost.whole_flops, cost.parts
    return Price(
        blocks(largest),
        k + r,
        0.0,
        *max((work, 0.0), (parts["piece"], parts["uncoded"]), key=sum),
        max(own.whole.bytes_in + own.whole.bytes_out, shares_bytes(largest)),
        str(len(cost.rounds)),
        4 * run["base"]["numbers"],
    )


def smaller_accuracy(
    trials: Sequence[Content], largest: Content, lost: int
) -> dict[str, float]:
    """Returns the accuracy where the network on smaller images stands in for a lost
    data piece: `mean` over the patterns, `worst`, and deviations over the trials.

    Args:
      trials: runs with smaller images, which differ in their seed.
      largest: of a run of the same size of code with the images as they are.
      lost: results that are lost.
    """
    k, r = sizes_of(largest)
    every = erasures.patterns(k + r, lost)
    harmful = sum(pattern[0] < k for pattern in every) / len(every)
    own = [base_accuracy(run) for run in trials]
    worst = statistics.fmean(own)
    deviation = statistics.stdev(own) if len(own) > 1 else 0.0
    return {
        "mean": harmful * worst + (1 - harmful) * base_accuracy(largest),
        "worst": worst,
        "mean_std": harmful * deviation,
        "worst_std": deviation,
    }


def of_smaller(trials: list[Content], largest: Content) -> Entry:
    """Returns the whole network on smaller images, see `smaller_price`."""
    height, width, _ = trials[0]["image_shape"]
    losses = {
        f"{lost} lost": drops(
            base_accuracy(largest), smaller_accuracy(trials, largest, lost)
        )
        for lost in range(1, sizes_of(largest)[1] + 1)
    }
    name, price = SMALLER.format(f"{height}x{width}"), smaller_price(trials[0], largest)
    return Entry(largest, name, price, losses, runs=tuple(trials))


def codes_of(run: Content) -> dict[str, Content]:
    """Returns the accuracies of a run's code, `code`, and its baselines, by name."""
    return {"code": run["summary"], **run["baselines"]}


def of_run(run: Content, name: str) -> Entry:
    """Returns the code of a run, or one of its baselines."""
    base, r, summary = base_accuracy(run), run["split"]["r"], codes_of(run)[name]
    losses, decoded, target = {}, {}, {}
    for lost in (lost for lost in summary if int(lost)):
        key = f"{lost} lost" if int(lost) <= r else f"{lost} lost, more than r"
        losses[key] = drops(base, summary[lost])
        if "decoded" in summary[lost] and int(lost) <= r:
            decoded[key] = drop_text(base, summary[lost], "decoded")
        if name == "code" and run["config"]["code"] == LEARNED:
            target[key] = targets.deep(run, lost).strip(" ()")
        for kind, of_codes in run.get("other_stage_losses", {}).items():
            if lost in of_codes[name]:
                losses[f"{key}, {kind}"] = drops(base, of_codes[name][lost])
    price = price_of(blocks(run), read_cost(run, name))
    measured = (losses, decoded, target, same_class(run, name), (run,))
    return Entry(run, label(run["config"], name), price, *measured)


def same_class(run: Content, name: str) -> float | None:
    """Returns the part of images that get the network's class where r results are lost,
    data among them; None if the run has kept no patterns of the code."""
    k, r = sizes_of(run)
    patterns = patterns_of(run, run["config"]["code"] if name == "code" else name)
    found = [
        pattern["agreement"]
        for pattern in patterns or ()
        if len(pattern["lost"]) == r and min(pattern["lost"]) < k
    ]
    return statistics.fmean(found) if found else None


def label(config: Content, name: str) -> str:
    """Returns the name of a code, with what distinguishes its recipe.

    Args:
      config: of the run, as in `results.json`.
      name: `"code"`, or a baseline.
    """
    code = config["code"] if name == "code" else name
    outputs = entry_of(code).trained and config.get("returned") == "outputs"
    tail = ENDS.get(config.get("tail", "frozen"), "")
    group = f"groups of {config['k']} images" * (config["split"] == "group")
    moves = "parity moves" if config.get("parity_moves") else ""
    parts = [code_name(config, code), "outputs" if outputs else "", tail, moves, group]
    return ", ".join(filter(None, parts))


def by_convolutions(run: Content) -> bool:
    """Returns whether a run codes every convolution by itself."""
    return run["config"]["split"] == "convolution"


def blocks(run: Content) -> str:
    """Returns the blocks that a run codes, as text."""
    if by_convolutions(run):
        stages = run["config"].get("stages")
        return f"every convolution{f' of {stages_text(stages)}' if stages else ''}"
    if run["config"]["split"] == "group":
        return "the whole network"
    return stages_text([stage["blocks"] for stage in run["split"]["stages"]])


def drops(base: float, accuracy: dict[str, float]) -> tuple[str, str]:
    """Returns points below the base, `0.45 ± 0.03`, in the mean and the worst pattern.

    Args:
      base: its accuracy, a fraction.
      accuracy: `mean` and `worst`, and their deviations over seeds.
    """
    mean, worst = (drop_text(base, accuracy, name) for name in ("mean", "worst"))
    return mean, worst


def drop_text(base: float, accuracy: dict[str, float], measure: str) -> str:
    """Returns points below the base of one measure, with the deviation over seeds."""
    deviation = 100 * accuracy.get(f"{measure}_std", 0.0)
    text = with_deviation(100 * (base - accuracy[measure]), deviation)
    return text.replace("-0.00", "0.00")


PRICE = (
    Column("code", lambda x: x.name),
    Column("coded", lambda x: x.price.coded),
    Column("devices", lambda x: str(x.price.devices)),
    Column("code's work, %", lambda x: f"{100 * x.price.work:.2f}"),
    Column("device", lambda x: f"{x.price.device:.2f}"),
    Column("client", lambda x: f"{x.price.client:.2f}"),
    Column(
        "client, a mask for each image",
        lambda x: f"{x.price.client + x.price.second_tail:.2f}",
    ),
    Column(
        "break-even",
        lambda x: "-" if (at := x.price.break_even) is None else f"{at:.2f}",
    ),
    Column("kB", lambda x: f"{x.price.bytes / 1e3:.1f}"),
    Column("rounds", lambda x: x.price.rounds),
    Column("memory, kB", lambda x: f"{x.price.memory / 1e3:.0f}"),
)
NETWORK = (
    Column("network", lambda x: "{} x {:g}".format(*network_of(x.run))),
    Column("data", lambda x: stored.data_of(x.run)),
    Column("part", lambda x: evaluated_part(x.run)),
    Column("base, %", lambda x: f"{100 * base_accuracy(x.run):.2f}"),
    Column("k", lambda x: str(x.run["split"]["k"])),
    Column("r", lambda x: str(x.run["split"]["r"])),
)


def loss_columns(found: Sequence[Entry]) -> list[Column]:
    """Returns columns of the losses that some entry has: mean, worst, decoded, target,
    and the part of images that keep their class."""
    made = []
    for key in sorted({key for entry in found for key in entry.losses}):
        for i, name in enumerate(("mean", "worst")):
            made.append(
                Column(
                    f"{key}, {name}",
                    lambda x, i=i, key=key: x.losses.get(key, ("-", "-"))[i],
                )
            )
        for name in ("decoded", "target"):
            if any(getattr(entry, name).get(key) for entry in found):
                made.append(
                    Column(
                        f"{key}, {name}",
                        lambda x, name=name, key=key: getattr(x, name).get(key, "-"),
                    )
                )
    same = lambda x: "-" if x.same is None else f"{100 * x.same:.1f}"
    return [*made, Column("same class, %", same)]


def tables(runs: Sequence[Content]) -> list[tuple[str, Table]]:
    """Returns title and table of each network and size of code."""
    made = []
    for group in grouped(runs):
        found = entries(group)
        made.append(
            (title_of(group), table.make([*PRICE, *loss_columns(found)], found))
        )
    return made


def title_of(group: Sequence[Content]) -> str:
    """Returns network, data, base, k and r of a group of runs."""
    run, _ = largest_of(group)
    network, base = "{} x {:g}".format(*network_of(run)), 100 * base_accuracy(run)
    part, sizes = evaluated_part(run), "k={}, r={}".format(*sizes_of(run))
    return (
        f"{network} on {stored.data_of(run)}, {part} images, base {base:.2f} %, {sizes}"
    )


SHORT = (
    Column("network, data", lambda x: f"{NETWORK[0].text(x)}, {stored.data_of(x.run)}"),
    Column("k, r", lambda x: "{}, {}".format(*sizes_of(x.run))),
    Column("base", NETWORK[3].text),
    Column("r lost, mean / worst", lambda x: " / ".join(x.losses[_most(x)])),
    Column("target", lambda x: x.target.get(_most(x)) or "-"),
    Column("device + client", lambda x: f"{x.price.device:.2f} + {x.price.client:.2f}"),
    Column("rounds", lambda x: x.price.rounds),
    Column("kB", lambda x: f"{x.price.bytes / 1e3:.1f}"),
)


def _most(entry: Entry) -> str:
    return f"{entry.run['split']['r']} lost"


def section() -> Section:
    """Returns our code on each network, and a file with everything beside it."""
    contents = stored.read("deep")
    groups = grouped([*contents.values()])
    found = [entry for group in groups for entry in entries(group)]
    origin = [
        Column(
            column.header,
            lambda x, c=column: "; ".join(dict.fromkeys(map(c.text, x.runs))) or "-",
        )
        for column in stored.ORIGIN
    ]
    everything = table.make([*NETWORK, *PRICE, *loss_columns(found), *origin], found)
    ours = [run for name, run in contents.items() if "_ours_" in name]
    codes = [x for x in found if x.run in ours and any(x.target.values())]
    codes = [x for x in codes if x.run["dataset"] in targets.DEEP_DATA]
    short = table.make(SHORT, codes)
    parts = [
        table.to_markdown(short),
        "Points below the base; work over that of the whole network.",
        sections.linked("deep.csv", everything, "code or other way"),
        stored.origin_text(contents.values()),
        "\n".join(stored.notes(contents)),
    ]
    return Section("\n\n".join(filter(None, parts)), {"deep.csv": everything})


SECTIONS: dict[str, Callable[[], Section]] = {"deep": section}
