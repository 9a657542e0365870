"""Tables of codes on deep networks: how much accuracy they lose, and their price."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from coded_jax.codes import LEARNED, entry_of, erasures
from coded_jax.models import make_base_model
from coded_jax.report.formatting import stages_text, with_deviation
from coded_jax.runs.build import variable_shapes
from coded_jax.runs.config import Config
from coded_jax.runs.reading import base_accuracy, code_name, evaluated_part
from coded_jax.runs.run_costs import read_cost
from tables import markdown, result_tables, stored, targets

ENDS = {"tuned": "tuned tail", "intact": "tail tuned on exact features"}
WHOLE = "no code: the whole image on each of {} devices, hedged or at once"
COPIES = "no code: copies of each piece on {} of {} devices"
SMALLER = "no code: whole network on {}, on the spare device"
BEYOND = "{} lost, more than r"
DECODED = "{} lost, decoded answers"
GROUPS = "groups of {} images"
Row = dict[str, str]


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
        rows = [row for x in members if x not in smaller for row in rows_of(x)]
        rows += [_smaller_row(results, largest) for results in smaller]
        rows.append(_whole_row(largest))
        if largest["config"]["split"] == "image":
            rows.append(_copies_row(largest))
        rows.sort(key=lambda row: (float(row["code's work, %"]), row["code"]))
        headings = list(dict.fromkeys(name for row in rows for name in row))
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
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Returns a run with the largest images, one that codes pieces of these if there is
    one, and the runs with smaller images."""
    pixels = lambda results: math.prod(results.get("image_shape", ()))
    codes_images = lambda results: results["config"]["split"] == "image"
    largest = max(runs, key=lambda results: (pixels(results), codes_images(results)))
    return largest, [x for x in runs if pixels(x) < pixels(largest)]


def _numbers(results: dict[str, Any]) -> int:
    """Counts the variables of a run's base model, which are its own."""
    config = Config.from_json(results["config"])
    base = make_base_model(config.base_model, config.base_width)
    sizes = (tuple(results["image_shape"]), results["classes"])
    leaves = jax.tree.leaves(variable_shapes(base, *sizes))
    return sum(math.prod(leaf.shape) for leaf in leaves)


def _smaller_row(results: dict[str, Any], largest: dict[str, Any]) -> Row:
    """Returns the row of the whole network on smaller images, on the spare devices,
    without any code: its answer counts where a data piece of the images was lost. Work
    and bytes are those of the busiest device, with a piece or with a smaller image.

    Args:
      results: of a run with smaller images, whose base model is the answer.
      largest: of a run of the same size of code with the images as they are.
    """
    k, r = result_tables.pieces(results)
    height, width, _ = results["image_shape"]
    cost, own = read_cost(largest, "code"), read_cost(results, "code")
    work, parts = own.whole_flops / cost.whole_flops, cost.parts
    whole_bytes = own.whole.bytes_in + own.whole.bytes_out
    row = {
        "code": SMALLER.format(f"{height}x{width}"),
        "coded": _blocks(largest),
        "code's work, %": "0.00",
        "all work": f"{max(work, parts['piece'] + parts['uncoded']):.2f}",
        "kB": f"{max(whole_bytes, cost.bytes_in + cost.bytes_out) / 1e3:.1f}",
        "rounds": str(len(cost.rounds)),
        "memory, kB": f"{_numbers(results) * 4 / 1e3:.0f}",
    }
    drop = base_accuracy(largest) - base_accuracy(results)
    for lost in range(1, r + 1):
        every = erasures.patterns(k + r, lost)
        harmful = sum(pattern[0] < k for pattern in every) / len(every)
        row[f"{lost} lost"] = f"{100 * harmful * drop:.2f} / {100 * drop:.2f}"
    return row


def _whole_row(results: dict[str, Any]) -> Row:
    """Returns the row of the network as it is on each of r + 1 devices: whoever answers
    first answers exactly, and r of them may be lost.

    Args:
      results: of a run with the network and size of code.
    """
    _, r = result_tables.pieces(results)
    whole = read_cost(results, "code").whole
    row = {
        "code": WHOLE.format(r + 1),
        "coded": "nothing",
        "code's work, %": "0.00",
        "all work": "1.00",
        "kB": f"{(whole.bytes_in + whole.bytes_out) / 1e3:.1f}",
        "rounds": "1",
        "memory, kB": "0",
    }
    return row | {f"{lost} lost": "0.00 / 0.00" for lost in range(1, r + 1)}


def _copies_row(results: dict[str, Any]) -> Row:
    """Returns the row of r + 1 copies of each piece, for as much work of a device as a
    code, and with more devices: r of them may be lost, and nothing is.

    Args:
      results: of a run that codes pieces of the image.
    """
    k, r = result_tables.pieces(results)
    cost, stages = read_cost(results, "code"), results["split"]["stages"]
    # Pieces of the image itself are sent as pixels of a byte, all else as float32.
    sent = sum(
        math.prod(stage["piece_shape"]) * (1 if stage["blocks"][0] == 1 else 4)
        for stage in stages
    )
    returned = sum(4 * math.prod(stage["share_shape"]) for stage in stages)
    row = {
        "code": COPIES.format(r + 1, k * (r + 1)),
        "coded": _blocks(results),
        "code's work, %": "0.00",
        "all work": f"{cost.parts['piece'] + cost.parts['uncoded']:.2f}",
        "kB": f"{(sent + returned) / 1e3:.1f}",
        "rounds": str(len(cost.rounds)),
        "memory, kB": "0",
    }
    return row | {f"{lost} lost": "0.00 / 0.00" for lost in range(1, r + 1)}


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
    cost = read_cost(results, name)
    coded = cost.coded_flops / cost.whole_flops
    row = {
        "code": label(config, name),
        "coded": f"{_blocks(results)} ({100 * coded:.0f} %)",
        "code's work, %": f"{100 * cost.price:.2f}",
        "all work": f"{sum(cost.parts.values()):.2f}",
        "kB": f"{(cost.bytes_in + cost.bytes_out) / 1e3:.1f}",
        "rounds": str(len(cost.rounds)),
        "memory, kB": f"{cost.memory / 1e3:.0f}",
    }
    for lost in (l for l in summary if int(l)):
        heading = f"{lost} lost" if int(lost) <= r else BEYOND.format(lost)
        row[heading] = drops_text(base, summary[lost])
        if config["split"] == "group" and "decoded" in summary[lost]:
            row[DECODED.format(lost)] = _drop_text(base, summary[lost], "decoded")
        if name == "code" and config["code"] == LEARNED:
            row[heading] += targets.deep(results, lost)
    for losses, of_codes in results.get("other_stage_losses", {}).items():
        if str(r) not in of_codes[name]:
            continue
        row[f"{r} lost, {losses}"] = drops_text(base, of_codes[name][str(r)])
    return row


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


def _blocks(results: dict[str, Any]) -> str:
    if results["config"]["split"] == "convolution":
        return "every convolution"
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
