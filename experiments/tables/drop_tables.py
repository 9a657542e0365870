"""Tables of codes on deep networks: how much accuracy they lose, and their price."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from coded_jax.codes import LEARNED, entry_of, erasures
from coded_jax.inference.costs import Cost
from coded_jax.models import BASE_MODELS, make_base_model
from coded_jax.report.formatting import stages_text, with_deviation
from coded_jax.runs.build import variable_shapes
from coded_jax.runs.config import Config
from coded_jax.runs.reading import (
    base_accuracy,
    code_name,
    evaluated_part,
    patterns_of,
)
from coded_jax.runs.run_costs import read_cost
from tables import markdown, result_tables, stored, targets

ENDS = {"tuned": "tuned tail", "intact": "tail tuned on exact features"}
WHOLE = "no code: the whole image on each of {} devices, hedged or at once"
COPIES = "no code: copies of each piece on {} devices"
RESENT = "no code: what is missing is sent once more, to a spare device"
SMALLER = "no code: whole network on {}, on the spare device"
PRICE = "code's work, %"
MORE = "more than r"
BEYOND = f"{{}} lost, {MORE}"
DECODED = "{} lost, decoded answers"
SAME = "same class, %"
GROUPS = "groups of {} images"
NOTHING = "0.00 / 0.00"
Row = dict[str, str]


class Price(NamedTuple):
    """What an inference of one image costs, with or without a code.

    Attributes:
      coded: the blocks that devices compute pieces of, as text.
      devices: that take part, or stand by.
      work: of encoding and decoding, over that of the coded blocks.
      device, client: work of the busiest device, and all of the client, over that of
        the whole `F_Conv`.
      bytes: that the busiest device receives and returns.
      rounds: to the devices and back.
      memory: bytes beside the network.
      second_tail: work of the client that is added if each image has a mask of its own.
    """

    coded: str
    devices: int
    work: float
    device: float
    client: float
    bytes: float
    rounds: int
    memory: float = 0.0
    second_tail: float = 0.0

    def row(self, code: str) -> Row:
        """Returns the first columns of a code's row. The break-even is the speed of the
        client, in devices, from which on it and a device together need less time than
        one device for the whole image, without links and stragglers."""
        spared = 1 - self.device
        both = self.client + self.second_tail
        masks = f" ({both:.2f} with a mask for each image)" * bool(self.second_tail)
        return {
            "code": code,
            "coded": self.coded,
            "devices": str(self.devices),
            PRICE: f"{100 * self.work:.2f}",
            "device + client": f"{self.device:.2f} + {self.client:.2f}{masks}",
            "break-even": f"{self.client / spared:.2f}" if spared > 0 else "-",
            "kB": f"{self.bytes / 1e3:.1f}",
            "rounds": str(self.rounds),
            "memory, kB": f"{self.memory / 1e3:.0f}",
        }


class Table(NamedTuple):
    """A table for one network and size of code."""

    title: str
    headings: list[str]
    rows: list[list[str]]


def tables(runs: Sequence[dict[str, Any]]) -> list[Table]:
    """Returns a table for each network and size of code, cheapest codes first.

    Args:
      runs: the contents of their `results.json`.
    """
    out = []
    for members in grouped(runs).values():
        largest, smaller = largest_of(members)
        stages = [x["config"].get("stages") for x in members if _by_convolutions(x)]
        exact = [whole_price(largest).row(WHOLE.format(largest["split"]["r"] + 1))]
        for cut in cuts_of(members):
            exact += _exact_rows(cut, cut["config"].get("stages") not in stages)
        apart = [*itertools.chain(*smaller)]
        coded = [row for x in members if x not in apart for row in rows_of(x)]
        coded += [_smaller_row(trials, largest) for trials in smaller]
        rows = sorted(
            [*coded, *exact], key=lambda row: (float(row[PRICE]), row["code"])
        )
        losses = sorted({name for row in coded for name in row if name[0].isdigit()})
        headings = [*whole_price(largest).row("")]
        headings += [*losses, *[SAME] * any(SAME in row for row in coded)]
        # Nothing is lost to them, whichever devices are, if these are at most r.
        kept = {name: NOTHING for name in losses if MORE not in name}
        kept |= {name: "0.00" for name in losses if "decoded" in name} | {SAME: "100.0"}
        rows = [kept | row if row in exact else row for row in rows]
        cells = [[row.get(name, "-") for name in headings] for row in rows]
        out.append(Table(title_of(largest), headings, cells))
    return out


def section(table: str, folder: Path | None = None) -> str:
    """Returns the tables of stored runs, and where they are from, for a document.

    Args:
      table: a folder of stored results.
      folder: of the runs; that of `stored.folder_of` if it is not given.
    """
    folder = folder or stored.folder_of(table)
    runs = result_tables.read(folder)
    parts = []
    for title, headings, rows in tables([*runs.values()]):
        parts += [f"{title}:", markdown.table(headings, rows)]
    commands = [
        f"- `{run}` ({result_tables.times(results)}): `{results['command']}`"
        for run, results in runs.items()
    ]
    parts.append(stored.origin_text([*runs.values()]))
    parts.append("\n".join([*stored.notes(runs), *commands]))
    return stored.with_history("\n\n".join(parts), folder, runs.values())


def grouped(runs: Sequence[dict[str, Any]]) -> dict[tuple, list[dict[str, Any]]]:
    """Returns the runs of each network and size of code, in order of both."""
    groups: dict[tuple, list[dict[str, Any]]] = {}
    for results in runs:
        groups.setdefault(_group(results), []).append(results)
    return dict(sorted(groups.items()))


def largest_of(
    runs: Sequence[dict[str, Any]],
) -> tuple[dict[str, Any], list[list[dict[str, Any]]]]:
    """Returns a run with the largest images, one that codes pieces of these if there is
    one, and the runs with smaller images: a list for each size, whose runs differ in
    their seed."""
    pixels = lambda results: math.prod(results.get("image_shape", ()))
    codes_images = lambda results: results["config"]["split"] == "image"
    largest = max(runs, key=lambda results: (pixels(results), codes_images(results)))
    sizes: dict[tuple, list[dict[str, Any]]] = {}
    for results in runs:
        if pixels(results) < pixels(largest):
            sizes.setdefault(tuple(results["image_shape"]), []).append(results)
    return largest, [*sizes.values()]


def _numbers(results: dict[str, Any]) -> int:
    """Counts the variables of a run's base model, which are its own."""
    config = Config.from_json(results["config"])
    base = make_base_model(config.base_model, config.base_width)
    sizes = (tuple(results["image_shape"]), results["classes"])
    leaves = jax.tree.leaves(variable_shapes(base, *sizes))
    return sum(math.prod(leaf.shape) for leaf in leaves)


def _smaller_row(trials: list[dict[str, Any]], largest: dict[str, Any]) -> Row:
    """Returns the row of the whole network on smaller images, see `smaller_price`."""
    height, width, _ = trials[0]["image_shape"]
    row = smaller_price(trials[0], largest).row(SMALLER.format(f"{height}x{width}"))
    for lost in range(1, result_tables.pieces(largest)[1] + 1):
        accuracy = smaller_accuracy(trials, largest, lost)
        row[f"{lost} lost"] = drops_text(base_accuracy(largest), accuracy)
    return row


def smaller_price(results: dict[str, Any], largest: dict[str, Any]) -> Price:
    """Returns what the whole network on smaller images costs, on the spare devices,
    without any code: its answer counts where a data piece of the images was lost, and
    the client computes nothing then; else the data pieces' results do. Work is that of
    the case with more of it, bytes are those of the busiest device.

    Args:
      results: of a run with smaller images, whose base model is the answer.
      largest: of a run of the same size of code with the images as they are.
    """
    k, r = result_tables.pieces(results)
    cost, own = read_cost(largest, "code"), read_cost(results, "code")
    work, parts = own.whole_flops / cost.whole_flops, cost.parts
    whole_bytes = own.whole.bytes_in + own.whole.bytes_out
    return Price(
        blocks(largest),
        k + r,
        0.0,
        *max((work, 0.0), (parts["piece"], parts["uncoded"]), key=sum),
        max(whole_bytes, _shares_bytes(largest)),
        len(cost.rounds),
        4 * _numbers(results),
    )


def smaller_accuracy(
    trials: Sequence[dict[str, Any]], largest: dict[str, Any], lost: int
) -> dict[str, float]:
    """Returns how many answers are right with so many results lost, where those of the
    network on smaller images stand in for a lost data piece.

    Args:
      trials: runs with smaller images, which differ in their seed.
      largest: of a run of the same size of code with the images as they are.

    Returns:
      The `mean` over the patterns and the `worst`, and their standard deviations over
      the trials, if there are several, as `mean_std` and `worst_std`.
    """
    k, r = result_tables.pieces(largest)
    every = erasures.patterns(k + r, lost)
    harmful = sum(pattern[0] < k for pattern in every) / len(every)
    own = [base_accuracy(results) for results in trials]
    worst = statistics.fmean(own)
    deviation = statistics.stdev(own) if len(own) > 1 else 0.0
    return {
        "mean": harmful * worst + (1 - harmful) * base_accuracy(largest),
        "worst": worst,
        "mean_std": harmful * deviation,
        "worst_std": deviation,
    }


def _by_convolutions(results: dict[str, Any]) -> bool:
    return results["config"]["split"] == "convolution"


def cuts_of(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns a run for each choice of blocks that is coded by pieces of the image, of
    the largest images."""
    largest, smaller = largest_of(runs)
    apart = [*itertools.chain(*smaller)]
    of_images = [x for x in runs if x["config"]["split"] == "image" and x not in apart]
    return [*{blocks(results): results for results in of_images}.values()]


def _exact_rows(results: dict[str, Any], counted: bool) -> list[Row]:
    """Returns the rows of what loses nothing with the same blocks, whichever r devices
    are lost: r + 1 copies of each piece, pieces of which a missing one is sent once
    more, and exact codes around every convolution.

    Args:
      results: of a run that codes pieces of the image.
      counted: whether the exact codes are to be counted, since no run has them.
    """
    k, r = result_tables.pieces(results)
    cost = read_cost(results, "code")
    stages, parts = results["split"]["stages"], cost.parts
    work, moved = (0.0, parts["piece"], parts["uncoded"]), _shares_bytes(results)
    copies = Price(blocks(results), k * (r + 1), *work, moved, len(stages))
    rows = [copies.row(COPIES.format(r + 1))]
    # Where devices that are lost stay so, the first round alone is waited for twice.
    most = f"-{2 * len(stages)}" if len(stages) > 1 else ""
    resent = copies._replace(devices=k + r).row(RESENT)
    rows.append(resent | {"rounds": f"{len(stages) + 1}{most}"})
    convolutions = same_blocks_cost(results) if counted else None
    if convolutions is not None:
        price = _price(f"every convolution of {blocks(results)}", convolutions)
        moving = ", parity moves" if results["config"]["parity_moves"] else ""
        rows.append(price.row(f"mds{moving} (counted)"))
    return rows


def _shares_bytes(results: dict[str, Any]) -> int:
    """Returns what a device receives and returns for one image where it returns its
    shares alone: pixels of the image itself are of a byte, all else is float32."""
    return sum(
        math.prod(stage["piece_shape"]) * (1 if stage["blocks"][0] == 1 else 4)
        + 4 * math.prod(stage["share_shape"])
        for stage in results["split"]["stages"]
    )


def whole_price(results: dict[str, Any]) -> Price:
    """Returns what the whole image on each of r + 1 devices costs, for a run's network
    and size of code."""
    _, r = result_tables.pieces(results)
    whole = read_cost(results, "code").whole
    return Price("nothing", r + 1, 0.0, 1.0, 0.0, whole.bytes_in + whole.bytes_out, 1)


def same_blocks_cost(results: dict[str, Any]) -> Cost | None:
    """Counts an exact code of every convolution in the blocks that a run has coded.

    Returns:
      None if the network is the user's own, or a stage has no convolution to cut.
    """
    config = results["config"]
    if config["base_model"] not in BASE_MODELS or "image_shape" not in results:
        return None
    of = Config.from_json(config)
    exact = Config(
        base_model=of.base_model,
        base_width=of.base_width,
        preactivations=of.preactivations,
        k=of.k,
        r=of.r,
        stages=of.stages,
        code="mds",
        split="convolution",
        parity_moves=of.parity_moves,
        baselines=(),
    )
    run = {**results, "config": exact.to_json(), "costs": {"code": {}}}
    try:
        return read_cost(run, "code")
    except ValueError:
        return None


def _price(coded: str, cost: Cost) -> Price:
    """Returns what a code costs where r results are lost."""
    parts = cost.parts
    return Price(
        f"{coded} ({100 * cost.coded_flops / cost.whole_flops:.0f} %)",
        cost.devices,
        cost.price,
        parts["piece"],
        parts["encode"] + parts["decode"] + parts["uncoded"],
        cost.bytes_in + cost.bytes_out,
        len(cost.rounds),
        cost.memory,
        cost.second_tail / cost.whole_flops,
    )


def _group(results: dict[str, Any]) -> tuple:
    config, (k, r) = results["config"], result_tables.pieces(results)
    return stored.data_of(results), config["base_model"], config["base_width"], k, r


def title_of(results: dict[str, Any]) -> str:
    """Returns what the runs of a group have in common, from one of them."""
    dataset, model, width, k, r = _group(results)
    base, part = 100 * base_accuracy(results), evaluated_part(results)
    return (
        f"{model} x {width:g} on {dataset}, {part} images, base {base:.2f} %, "
        f"k={k}, r={r}"
    )


def rows_of(results: dict[str, Any]) -> list[Row]:
    """Returns a row for the code of a run, and for each of its baselines."""
    codes = codes_of(results).items()
    return [_row(results, name, summary) for name, summary in codes]


def codes_of(results: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Returns the accuracies of a run's code, `code`, and its baselines, by name."""
    return {"code": results["summary"], **results["baselines"]}


def _row(results: dict[str, Any], name: str, summary: dict[str, Any]) -> Row:
    config, split = results["config"], results["split"]
    base, r = base_accuracy(results), split["r"]
    row = _price(blocks(results), read_cost(results, name)).row(label(config, name))
    for lost in (l for l in summary if int(l)):
        heading = f"{lost} lost" if int(lost) <= r else BEYOND.format(lost)
        row[heading] = drops_text(base, summary[lost])
        if "decoded" in summary[lost] and int(lost) <= r:
            row[DECODED.format(lost)] = _drop_text(base, summary[lost], "decoded")
        if name == "code" and config["code"] == LEARNED:
            row[heading] += targets.deep(results, lost)
        for losses, of_codes in results.get("other_stage_losses", {}).items():
            if lost in of_codes[name]:
                row[f"{heading}, {losses}"] = drops_text(base, of_codes[name][lost])
    same = _same_class(results, name)
    return row if same is None else row | {SAME: f"{100 * same:.1f}"}


def _same_class(results: dict[str, Any], name: str) -> float | None:
    """Returns the part of images that get the network's class, where r results are lost
    and data among them; None if the run has kept no patterns of the code."""
    k, r = result_tables.pieces(results)
    patterns = patterns_of(
        results, results["config"]["code"] if name == "code" else name
    )
    decoded = [
        pattern["agreement"]
        for pattern in patterns or ()
        if len(pattern["lost"]) == r and min(pattern["lost"]) < k
    ]
    return statistics.fmean(decoded) if decoded else None


def label(config: dict[str, Any], name: str) -> str:
    """Returns the name of a code of a run, with what distinguishes its recipe.

    Args:
      config: of the run, as in `results.json`.
      name: `"code"`, or a baseline.
    """
    code = config["code"] if name == "code" else name
    parts = [code_name(config, code)]
    if entry_of(code).trained and config.get("returned") == "outputs":
        parts.append("outputs")
    if config.get("tail", "frozen") in ENDS:
        parts.append(ENDS[config["tail"]])
    if config.get("parity_moves"):
        parts.append("parity moves")
    if config["split"] == "group":
        parts.append(GROUPS.format(config["k"]))
    return ", ".join(parts)


def blocks(results: dict[str, Any]) -> str:
    """Returns what a run codes: blocks of the network, or all of it."""
    if _by_convolutions(results):
        stages = results["config"].get("stages")
        return f"every convolution{f' of {stages_text(stages)}' if stages else ''}"
    if results["config"]["split"] == "group":
        return "the whole network"
    return stages_text([stage["blocks"] for stage in results["split"]["stages"]])


def drops_text(base: float, accuracy: dict[str, float]) -> str:
    """Returns points below the base, `0.45 ± 0.03 / 0.90 ± 0.10`, mean and worst.

    Args:
      base: its accuracy, a fraction.
      accuracy: `mean` and `worst`, and their deviations over seeds.
    """
    return " / ".join(_drop_text(base, accuracy, x) for x in ("mean", "worst"))


def _drop_text(base: float, accuracy: dict[str, float], measure: str) -> str:
    deviation = 100 * accuracy.get(f"{measure}_std", 0.0)
    text = with_deviation(100 * (base - accuracy[measure]), deviation)
    return text.replace("-0.00", "0.00")
