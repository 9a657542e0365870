"""What `frontier.py` says of runs, as rows of tables and as lines."""

from __future__ import annotations

from typing import Any

import numpy as np

from coded_jax.codes import LEARNED, NO_PARITY
from coded_jax.report import frontier
from coded_jax.report.display import lost_text
from coded_jax.report.frontier import Point
from coded_jax.runs.reading import code_name, patterns_of
from tables import sections
from tables.finished_runs import read_runs

COVERAGES = (0.9, 0.98)
FAILURES = [0.01, 0.05, 0.2]


def read(arguments: list[str]) -> tuple[list[Point], list[dict[str, Any]]]:
    """All codes of the runs, and the runs' results.

    Raises:
      ValueError: see `read_runs`; or two runs say something else of the same code.
    """
    runs = read_runs(arguments)
    found = frontier.distinct(runs)
    base = runs[0]["base"]["test_accuracy"]
    wholes = [frontier.whole_image(n, base) for n in {p.n for p in found}]
    return sorted([*found, *wholes], key=lambda p: (p.n, p.work)), runs


def text(values: list[float], digits: int = 2) -> str:
    """Mean and standard deviation over seeds, in percent; `-` for no value."""
    if not values:
        return "-"
    mean, deviation = frontier.mean_std(values)
    found = f"{100 * mean:.{digits}f}"
    return f"{found} ± {100 * deviation:.{digits}f}" if deviation else found


def most_lost(points: list[Point], n: int) -> int:
    """How many losses all codes on n devices are made for, 1 or more."""
    return max(1, min(p.r for p in points if p.n == n))


def of_codes(
    points: list[Point], failures: list[float]
) -> tuple[list[str], list[list[str]]]:
    """Headings, and a row for each code; failures are probabilities of `A(f)`."""
    most = max(most_lost(points, n) for n in {p.n for p in points})
    middle = failures[len(failures) // 2]
    headings = ["n", "code", "k, r", "pieces", "work"]
    headings += ["encode + piece + decode + not coded"]
    headings += [f"{l} lost, mean (worst)" if l else "0 lost" for l in range(most + 1)]
    headings += [f"A({f:g})" for f in failures] + [f"beaten at {middle:g} by"]
    found = []
    for point in points:
        better = frontier.beaten_by(point, points, middle)
        lost = [text([seed[0] for seed in point.accuracy])]
        lost += [
            f"{text([seed[l] for seed in point.accuracy if l < len(seed)])} "
            f"({text([seed[l] for seed in point.worst if l < len(seed)])})"
            for l in range(1, most + 1)
        ]
        parts = (point.encode, point.piece, point.decode, point.uncoded)
        beaten = label(better) if better else ""
        found.append(
            [
                str(point.n),
                point.code,
                f"{point.k}, {point.r}",
                point.grid + of_blocks(point),
                f"{point.work:.2f}",
                " + ".join(f"{x:.2f}" for x in parts),
                *lost,
                *(text(frontier.overall(point, f), 3) for f in failures),
                beaten if frontier.overall(point, middle) else "-",
            ]
        )
    return headings, found


def of_blocks(point: Point) -> str:
    """Which blocks are coded, where it is not all of them at once."""
    return f" of blocks {point.stages}" if point.stages else ""


def label(point: Point) -> str:
    """A code, the blocks that it codes, k and r: for a legend or a cell."""
    return f"{point.code}{of_blocks(point)} ({point.k}, {point.r})"


def against_no_parity(runs: list[dict[str, Any]]) -> list[str]:
    """A line of every learned code whose decoder some run has without parity: where
    that is as good."""
    lines = []
    for results in (r for r in runs if r["config"]["code"] == LEARNED):
        config, split = results["config"], results["split"]
        rivals = [
            found
            for other in (results, *runs)
            if all(other["split"][key] == split[key] for key in ("k", "r", "grid"))
            and all(other["config"][key] == config[key] for key in ("stages", "recipe"))
            and code_name(other["config"], NO_PARITY) == code_name(config, NO_PARITY)
            and (found := patterns_of(other, NO_PARITY))
        ]
        if not rivals:
            continue
        name, k, r = code_name(config, LEARNED), split["k"], split["r"]
        worse, total = frontier.no_better(results["patterns"], rivals[0], k, r)
        if not total:
            continue
        where = ", ".join(
            f"{lost_text(ours['lost'], k)} "
            f"({100 * ours['accuracy']:.2f}, without {100 * theirs['accuracy']:.2f})"
            for ours, theirs in worse
        )
        lines.append(
            f"{name} ({k}, {r}): better than without parity in "
            f"{total - len(worse)} of the {total} patterns that lose a data piece, and "
            f"at most {r} results{', not in ' if where else ''}{where}"
        )
    return lines


def of_learned_codes(
    runs: list[dict[str, Any]],
) -> tuple[list[str], list[list[str]]]:
    """Headings, and for each learned code a row for each number of lost results: how
    much less accurate it is than the base model, and how well it knows that."""
    headings = ["code", "k, r", "lost", "drop from the base, mean", "worst pattern"]
    headings += ["ECE", "uncalibrated", "ECE of decoded answers"]
    headings += [f"error at coverage {coverage:g}" for coverage in COVERAGES]
    found = []
    for results in (r for r in runs if r["config"]["code"] == LEARNED):
        split, base = results["split"], results["base"]["test_accuracy"]
        tried = [str(l) for l in range(split["r"] + 1)]
        for l in (l for l in tried if l in results["confidence"]):
            known, reached = results["confidence"][l], results["summary"][l]
            curve = known["curve"]
            drop = {**reached, **{x: base - reached[x] for x in ("mean", "worst")}}
            row = [code_name(results["config"], LEARNED)]
            row += [f"{split['k']}, {split['r']}", l]
            row += [percent(drop, x) for x in ("mean", "worst")]
            row += [percent(known, x) for x in ("ece", "ece_uncalibrated")]
            row += [percent(known, "ece_decoded")]
            risks = np.interp(COVERAGES, curve["coverage"], curve["risk"])
            row += [f"{100 * risk:.2f}" for risk in risks]
            found.append(row)
    return headings, found


def percent(found: dict[str, float | None], name: str) -> str:
    """A number and its standard deviation over seeds, if there is one; `-` for none."""
    if found.get(name) is None:
        return "-"
    value = f"{100 * found[name]:.2f}".replace("-0.00", "0.00")
    deviation = f"{100 * found.get(f'{name}_std', 0):.2f}"
    return value if deviation == "0.00" else f"{value} ± {deviation}"


def heading_of(results: dict[str, Any]) -> str:
    """What all rows have in common, from one of the runs."""
    config, base = results["config"], 100 * results["base"]["test_accuracy"]
    worker = "network" if config["split"] == "group" else "F_Conv"
    return (
        f"{results['dataset']}, {config['base_model']}, base {base:.2f} %; "
        f"work is that of the busiest device for one image, over the whole {worker}; "
        "A(f) is the accuracy where each device fails with probability f"
    )


def all_tables(
    points: list[Point], runs: list[dict[str, Any]], failures: list[float]
) -> list[tuple[list[str], list[list[str]]]]:
    """Headings and rows of each table that has rows."""
    found = of_codes(points, failures), of_learned_codes(runs)
    return [table for table in found if table[1]]


def markdown(arguments: list[str]) -> str:
    """For the README.

    Args:
      arguments: as for `read`.

    Raises:
      ValueError: see `read`.
    """
    points, runs = read(arguments)
    parts = [f"{heading_of(runs[0])}."]
    parts += [sections.table(*table) for table in all_tables(points, runs, FAILURES)]
    if lines := against_no_parity(runs):
        parts.append("\n".join(f"- {line}" for line in lines))
    return "\n\n".join(parts)
