"""Makes the README's tables from `results.json` files and from a benchmark.

python experiments/report.py experiments/results/*.json            # print
python experiments/report.py --readme=README.md experiments/results/*.json
python experiments/report.py --readme=README.md --benchmark=experiments/benchmark.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import benchmark_tables
from absl import app, flags
from command_line import parse_flags
from sections import write_sections

from coded_jax.codes import LEARNED
from coded_jax.display import blocks_text, percent, spread

README = flags.DEFINE_string("readme", None, "file whose sections are replaced")
BENCHMARK = flags.DEFINE_string("benchmark", None, "JSON file of benchmark.py")

PAPER = {(2, 1): "90.56", (4, 1): "96.85", (4, 2): "91.79"}  # Table V, MLP or Conv

# The authors' public code on Fashion-MNIST at (4,2), base 89.13: by lost results.
AUTHORS = {"1": "80.91", "2": "74.37"}

HEADER = (
    "| k, r, l | code | recipe | base | mean | worst | zero-fill mean (worst) "
    "| no parity mean (worst) | paper | epochs | seed | wall time | run |\n"
    "|---|---|---|---|---|---|---|---|---|---|---|---|---|"
)

ZOO_HEADER = (
    "| network | coded stages | k, r | pieces | work of a device | base | nothing lost "
    "| l | mean | worst | drop | zero-fill mean (worst) | no parity mean (worst) "
    "| authors' code | run |\n"
    "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|"
)

GROUP_HEADER = (
    "| network | k, r | code | base | nothing lost | l | decoded answers | all, mean "
    "| all, worst |\n|---|---|---|---|---|---|---|---|---|"
)


def order(results: dict[str, Any]) -> tuple:
    config, stages = results["config"], results["split"].get("stages", [])
    network = (results["dataset"], config["base_model"], len(stages))
    return *network, config["encoder"] != "mlp", config["recipe"], *pieces(results)


def pieces(results: dict[str, Any]) -> tuple[int, int]:
    """`(k, r)`."""
    return results["split"]["k"], results["split"]["r"]


def baseline(results: dict[str, Any], which: str, lost: str) -> str:
    """Mean and worst accuracy of one baseline; `-` if it was not evaluated."""
    found = results["baselines"].get(which)
    if not found:
        return "-"
    return f"{spread(found[lost], 'mean')} ({spread(found[lost], 'worst')})"


def row(name: str, results: dict[str, Any]) -> str:
    """One run on MNIST: a row as of Table V."""
    config, split = results["config"], results["split"]
    lost = max(l for l in results["summary"] if int(l) <= split["r"])
    coded = results["summary"][lost]
    cells = [
        f"{split['k']}, {split['r']}, {lost}",
        networks(config),
        config["recipe"],
        percent(results["base"]["test_accuracy"]),
        f"**{spread(coded, 'mean')}**",
        spread(coded, "worst"),
        baseline(results, "zero_fill", lost),
        baseline(results, "no_parity", lost),
        PAPER.get(pieces(results), "-"),
        f"{config['base_epochs']:g} + {config['epochs']:g}",
        str(results["seed"]),
        f"{results['timing']['seconds']['total']:.0f} s",
        f"`{name}`",
    ]
    return f"| {' | '.join(cells)} |"


def zoo_rows(name: str, results: dict[str, Any]) -> list[str]:
    """One run on another data set: a row for every number of lost results but 0."""
    config, split, base = results["config"], results["split"], results["base"]
    stages = ", ".join(blocks_text(stage["blocks"]) for stage in split["stages"])
    rows = []
    for lost, coded in list(results["summary"].items())[1:]:
        authors = "-"
        if (results["dataset"], config["base_model"]) == ("fashion_mnist", "lenet5"):
            authors = AUTHORS.get(lost, authors) if split["k"] == 4 else authors
        cells = [
            f"{config['base_model']} x {config['base_width']:g}",
            f"{stages} ({100 * split['coded_fraction']:.0f} % of all work)",
            f"{split['k']}, {split['r']}",
            "x".join(map(str, split["grid"])),
            f"{split['work_fraction']:.3f}",
            percent(base["test_accuracy"]),
            percent(results["summary"]["0"]["mean"]),
            lost,
            f"**{spread(coded, 'mean')}**",
            spread(coded, "worst"),
            f"{100 * (base['test_accuracy'] - coded['mean']):.2f}",
            baseline(results, "zero_fill", lost),
            baseline(results, "no_parity", lost),
            authors,
            f"`{name}`",
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return rows


def group_rows(results: dict[str, Any]) -> list[str]:
    """One run on groups of images: for every code, a row for each number of lost
    results up to r."""
    config, (k, r) = results["config"], pieces(results)
    network = f"{results['dataset']}, {config['base_model']} x {config['base_width']:g}"
    rows = []
    for name, losses in {
        config["code"]: results["summary"],
        **results["baselines"],
    }.items():
        for lost, found in losses.items():
            if not 0 < int(lost) <= r:
                continue
            cells = [
                network,
                f"{k}, {r}",
                name,
                percent(results["base"]["test_accuracy"]),
                spread(losses["0"], "mean"),
                lost,
                f"**{spread(found, 'decoded')}**" if "decoded" in found else "-",
                spread(found, "mean"),
                spread(found, "worst"),
            ]
            rows.append(f"| {' | '.join(cells)} |")
    return rows


def times(results: dict[str, Any]) -> str:
    """Epochs and seconds of a run's phases."""
    config, seconds = results["config"], results["timing"]["seconds"]
    no_parity = ""
    if "no_parity" in seconds:
        no_parity = f"no parity {seconds['no_parity']:.0f} s, "
    return (
        f"base {config['base_epochs']:g} epochs {seconds['base']:.0f} s, code "
        f"{config['epochs']:g} epochs {seconds['code']:.0f} s, {no_parity}evaluation "
        f"{seconds['evaluation']:.0f} s"
    )


def name_of(path: Path) -> str:
    """A run's name: of its workdir, or of a copy of its results."""
    return path.parent.name if path.name == "results.json" else path.stem


def networks(config: dict[str, Any]) -> str:
    """`mlp / conv 128`, with widths, and with channels where they are not the default;
    the name of a code without such networks."""
    if config.get("code", LEARNED) != LEARNED:
        return config["code"]
    encoder = [config["encoder"], config["encoder_width"]]
    decoder = [config[f"decoder{part}"] for part in ("", "_width", "_channels")]
    return " / ".join(
        " ".join(str(word) for word in words if word is not None)
        for words in (encoder, decoder)
    )


def read(paths: list[Path]) -> dict[str, dict[str, Any]]:
    """Name and content of each file, in the order of the tables.

    Raises:
      ValueError: two have one name, or one is no such file.
    """
    found = {}
    for path in paths:
        try:
            results = json.loads(path.read_text())
        except (OSError, ValueError):
            results = None
        if not isinstance(results, dict) or "summary" not in results:
            raise ValueError(
                f"files: {str(path)!r} given, files of results.json accepted"
            )
        found[name_of(path)] = results
    if len(found) < len(paths):
        raise ValueError(f"files: {[str(p) for p in paths]} hold two runs of one name")
    return dict(sorted(found.items(), key=lambda item: order(item[1])))


def report(paths: list[Path]) -> dict[str, str]:
    """Markdown of each section: a table, and below it the command of each run.

    Returns:
      `groups` with the runs that code different images together, `results` with those
      on MNIST, and `zoo` with the others, as far as there are.
    """
    runs = read(paths)
    groups = {n: r for n, r in runs.items() if r["config"].get("split") == "group"}
    images = {n: r for n, r in runs.items() if n not in groups}
    table_5 = {n: r for n, r in images.items() if r["dataset"].startswith("mnist")}
    zoo = {n: r for n, r in images.items() if n not in table_5}
    sections = {}
    if table_5:
        rows = [row(name, results) for name, results in table_5.items()]
        commands = [f"- `{name}`: `{r['command']}`" for name, r in table_5.items()]
        sections["results"] = section(HEADER, rows, table_5, commands)
    if zoo:
        rows = [
            line for name, results in zoo.items() for line in zoo_rows(name, results)
        ]
        commands = [
            f"- `{name}` (seed {r['seed']}; {times(r)}): `{r['command']}`"
            for name, r in zoo.items()
        ]
        sections["zoo"] = section(ZOO_HEADER, rows, zoo, commands)
    if groups:
        rows = [line for results in groups.values() for line in group_rows(results)]
        commands = [
            f"- `{name}` (seed {r['seed']}): `{r['command']}`"
            for name, r in groups.items()
        ]
        sections["groups"] = section(GROUP_HEADER, rows, groups, commands)
    return sections


def section(header: str, rows: list[str], runs: dict, commands: list[str]) -> str:
    """A table, what it was measured with, and the commands."""
    setups = "; ".join(sorted({setup(results) for results in runs.values()}))
    table, listed = "\n".join([header, *rows]), "\n".join(commands)
    return f"{table}\n\nMeasured with {setups}.\n\n{listed}"


def setup(results: dict[str, Any]) -> str:
    versions, machine = results["versions"], results["machine"]
    return (
        f"jax {versions['jax']}, flax {versions['flax']}, Python {versions['python']} "
        f"on {machine['cores']} cores, device {machine['device']}"
    )


def read_benchmark() -> dict[str, Any]:
    """The content of `--benchmark`.

    Raises:
      ValueError: it is no such file.
    """
    try:
        return json.loads(Path(BENCHMARK.value).read_text())
    except (OSError, ValueError):
        raise ValueError(
            f"benchmark: {BENCHMARK.value!r} given, a file of benchmark.py accepted"
        ) from None


def main(argv: list[str]) -> None:
    try:
        sections = report([Path(argument) for argument in argv[1:]])
        if BENCHMARK.value is not None:
            sections["benchmark"] = benchmark_tables.markdown(read_benchmark())
        if not sections:
            raise ValueError(
                "files: none given, results.json files or --benchmark accepted"
            )
        if README.value is None:
            print("\n\n".join(sections.values()))
            return
        write_sections(README.value, sections)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
