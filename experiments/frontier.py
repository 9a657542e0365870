"""Compares all codes on one base model: accuracy against work and against failures.

    python experiments/frontier.py --output=runs/frontier runs/frontier_lenet5_*

Arguments are workdirs of finished runs, or copies of their `results.json`, with the
same base model; `A(f)` needs runs with a `--tried` of at least the devices less one.
Prints a table, and writes `frontier.json` and `frontier.png`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from absl import app, flags
from command_line import parse_flags
from rich import box
from rich.console import Console
from rich.table import Table
from sections import replace_section

from coded_jax import frontier
from coded_jax.codes import NO_PARITY
from coded_jax.display import lost_text
from coded_jax.frontier import Point
from coded_jax.workdir import RESULTS, write_atomically

OUTPUT = flags.DEFINE_string("output", None, "folder of frontier.json and .png")
FAILURE = flags.DEFINE_multi_float(
    "failure", [0.01, 0.05, 0.2], "probability that a device's result is lost"
)
README = flags.DEFINE_string("readme", None, "file whose frontier section is replaced")


def read(arguments: list[str]) -> tuple[list[Point], list[dict[str, Any]]]:
    """All codes of the runs, and the runs' results.

    Raises:
      ValueError: a file is missing, or two runs differ in their base model, or in what
        they say of the same code.
    """
    runs = []
    for argument in arguments:
        path = Path(argument)
        path = path / RESULTS if path.is_dir() else path
        try:
            runs.append(json.loads(path.read_text()))
        except (OSError, ValueError):
            raise ValueError(
                f"runs: {argument!r} given, workdirs or files of results.json accepted"
            ) from None
        costs = runs[-1].get("costs", {}) if isinstance(runs[-1], dict) else {}
        if "uncoded" not in costs.get("code", {}):
            raise ValueError(
                f"runs: {argument!r} given, results.json of this version accepted; "
                "finished runs are evaluated again by their command"
            )
    if not runs:
        raise ValueError("runs: none given, one or more workdirs accepted")
    bases = {(r["dataset"], r["base"]["test_accuracy"]) for r in runs}
    if len(bases) > 1:
        raise ValueError(f"runs: of different base models ({sorted(bases)})")
    found: dict[tuple, Point] = {}
    for results in runs:
        for point in frontier.points(results):
            name = (point.code, point.k, point.r, point.grid, point.stages)
            if found.setdefault(name, point) != point:
                raise ValueError(f"runs: two of {name} given, with other results each")
    base = runs[0]["base"]["test_accuracy"]
    wholes = [frontier.whole_image(n, base) for n in {p.n for p in found.values()}]
    return sorted([*found.values(), *wholes], key=lambda p: (p.n, p.work)), runs


def text(values: list[float], digits: int = 2) -> str:
    """Mean and standard deviation over seeds, in percent; `-` for no value."""
    if not values:
        return "-"
    mean, deviation = frontier.mean_std(values)
    found = f"{100 * mean:.{digits}f}"
    return f"{found} ± {100 * deviation:.{digits}f}" if deviation else found


def rows(points: list[Point]) -> tuple[list[str], list[list[str]]]:
    """Headings, and a row for each code."""
    most = max(min(p.r for p in points if p.n == n) for n in {p.n for p in points})
    most = max(most, 1)
    middle = FAILURE.value[len(FAILURE.value) // 2]
    headings = ["n", "code", "k, r", "pieces", "work", "encode + piece + decode"]
    headings += [f"{l} lost, mean (worst)" if l else "0 lost" for l in range(most + 1)]
    headings += [f"A({f:g})" for f in FAILURE.value] + [f"beaten at {middle:g} by"]
    found = []
    for point in points:
        better = frontier.beaten_by(point, points, middle)
        lost = [text([seed[0] for seed in point.accuracy])]
        lost += [
            f"{text([seed[l] for seed in point.accuracy if l < len(seed)])} "
            f"({text([seed[l] for seed in point.worst if l < len(seed)])})"
            for l in range(1, most + 1)
        ]
        parts = (point.encode, point.piece, point.decode)
        blocks = f" of blocks {point.stages}" if point.stages else ""
        found.append(
            [
                str(point.n),
                point.code,
                f"{point.k}, {point.r}",
                point.grid + blocks,
                f"{point.work:.2f}",
                " + ".join(f"{x:.2f}" for x in parts),
                *lost,
                *(text(frontier.overall(point, f), 3) for f in FAILURE.value),
                f"{better.code} ({better.k}, {better.r})" if better else "",
            ]
        )
    return headings, found


def against_no_parity(runs: list[dict[str, Any]]) -> list[str]:
    """A line of every run with that baseline: where parity is of no use."""
    lines = []
    for results in runs:
        found = frontier.no_better(results, NO_PARITY)
        if found is None:
            continue
        config, split = results["config"], results["split"]
        name = frontier.code_name(config, config["code"])
        worse, total = found
        where = ", ".join(
            f"{lost_text(ours['lost'], split['k'])} "
            f"({100 * ours['accuracy']:.2f}, without {100 * theirs['accuracy']:.2f})"
            for ours, theirs in worse
        )
        lines.append(
            f"{name} ({split['k']}, {split['r']}): better than without parity in "
            f"{total - len(worse)} of the {total} patterns that lose a data piece, and "
            f"at most {split['r']} results{', not in ' if where else ''}{where}"
        )
    return lines


def markdown(headings: list[str], rows: list[list[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def plot(path: Path, points: list[Point]) -> None:
    """Per number of devices: A(f) against work, and the error against f.

    Raises:
      ImportError: matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plots need: pip install 'coded_jax[plot]'") from error
    counts = sorted({point.n for point in points})
    figure = Figure(figsize=(13, 5 * len(counts)), layout="constrained")
    axes = figure.subplots(len(counts), 2, squeeze=False)
    middle = FAILURE.value[len(FAILURE.value) // 2]
    failures = [10 ** (-3 + i / 20) for i in range(55)]
    for n, (left, right) in zip(counts, axes, strict=True):
        same = [p for p in points if p.n == n and frontier.overall(p, middle)]
        for i, point in enumerate(same):
            style = {"color": f"C{i % 10}", "marker": "osD^vX*P"[i // 10 % 8]}
            name = f"{point.code} ({point.k}, {point.r})"
            mean, deviation = frontier.mean_std(frontier.overall(point, middle))
            left.errorbar(point.work, 100 * mean, 100 * deviation, label=name, **style)
            errors = [
                100 - 100 * frontier.mean_std(frontier.overall(point, f))[0]
                for f in failures
            ]
            right.plot(failures, errors, label=name, markevery=6, ms=4, **style)
        left.set(xscale="log", xlabel="work of the busiest device / whole F_Conv")
        left.set(ylabel=f"A({middle:g}), %", title=f"{n} devices")
        right.set(xscale="log", yscale="log", xlabel="failure probability f")
        right.set(ylabel="100 - A(f), %", title=f"{n} devices")
        right.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, dpi=110)


def main(argv: list[str]) -> None:
    try:
        for failure in FAILURE.value:
            if not 0 <= failure <= 1:
                raise ValueError(f"failure: {failure} given, 0..1 accepted")
        points, runs = read(argv[1:])
    except ValueError as error:
        sys.exit(f"error: {error}")
    headings, table = rows(points)
    shown = Table(*headings, box=box.SIMPLE_HEAD)
    for row in table:
        shown.add_row(*row)
    results, lines = runs[0], against_no_parity(runs)
    base = 100 * results["base"]["test_accuracy"]
    heading = (
        f"{results['dataset']}, {results['config']['base_model']}, base {base:.2f} %; "
        "work is that of the busiest device for one image, over the whole F_Conv; "
        "A(f) is the accuracy where each device fails with probability f"
    )
    console = Console(width=None if sys.stdout.isatty() else 200)
    console.print(heading, shown, *lines, sep="\n", highlight=False)
    try:
        if README.value is not None:
            readme = Path(README.value)
            section = f"{heading}.\n\n{markdown(headings, table)}\n"
            section = "\n".join([section, *(f"- {line}" for line in lines)]).rstrip()
            replaced = replace_section(readme.read_text(), "frontier", section)
            write_atomically(readme, replaced)
        if OUTPUT.value is not None:
            write(Path(OUTPUT.value), points, results)
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"error: {error}")


def write(folder: Path, points: list[Point], results: dict[str, Any]) -> None:
    """Writes `frontier.json` and `frontier.png`.

    Raises:
      OSError: the folder cannot be written to.
      ImportError: matplotlib is missing; then only the JSON is written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "dataset": results["dataset"],
        "base": results["base"],
        "points": [
            {
                **point._asdict(),
                "work": point.work,
                "overall": {
                    str(f): frontier.mean_std(frontier.overall(point, f))
                    for f in FAILURE.value
                },
            }
            for point in points
        ],
    }
    write_atomically(folder / "frontier.json", json.dumps(content, indent=1) + "\n")
    plot(folder / "frontier.png", points)


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
