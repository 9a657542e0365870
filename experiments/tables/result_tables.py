"""The README's tables of runs: results, the zoo, and groups of images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from coded_jax.codes import LEARNED
from coded_jax.report.display import blocks_text, percent, spread
from tables import sections
from tables.finished_runs import read_results

PAPER = {(2, 1): "90.56", (4, 1): "96.85", (4, 2): "91.79"}  # Table V, MLP or Conv

# The authors' public code on Fashion-MNIST at (4,2), base 89.13: by lost results.
AUTHORS = {"1": "80.91", "2": "74.37"}

RESULTS_COLUMNS = (
    "k, r, l",
    "code",
    "recipe",
    "base",
    "mean",
    "worst",
    "zero-fill mean (worst)",
    "no parity mean (worst)",
    "paper",
    "epochs",
    "seed",
    "wall time",
    "run",
)

ZOO_COLUMNS = (
    "network",
    "coded stages",
    "k, r",
    "pieces",
    "work of a device",
    "base",
    "nothing lost",
    "l",
    "mean",
    "worst",
    "drop",
    "zero-fill mean (worst)",
    "no parity mean (worst)",
    "authors' code",
    "run",
)

GROUP_COLUMNS = (
    "network",
    "k, r",
    "code",
    "base",
    "nothing lost",
    "l",
    "decoded answers",
    "all, mean",
    "all, worst",
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


def row(name: str, results: dict[str, Any]) -> list[str]:
    """One run on MNIST: a row as of Table V."""
    config, split = results["config"], results["split"]
    lost = max(l for l in results["summary"] if int(l) <= split["r"])
    coded = results["summary"][lost]
    return [
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


def zoo_rows(name: str, results: dict[str, Any]) -> list[list[str]]:
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
        rows.append(cells)
    return rows


def group_rows(results: dict[str, Any]) -> list[list[str]]:
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
            rows.append(cells)
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
    """Name and content of each file, in the order of the tables."""
    found = {path.stem: read_results(path) for path in paths}
    return dict(sorted(found.items(), key=lambda item: order(item[1])))


def kind(results: dict[str, Any]) -> str:
    """The section that a run is shown in."""
    if results["config"].get("split") == "group":
        return "groups"
    return "results" if results["dataset"].startswith("mnist") else "zoo"


def markdown(section: str, paths: list[Path]) -> str:
    """A table, what it was measured with, and below it the command of each run.

    Args:
      section: `results` with the runs on MNIST, `zoo` with those on other data sets,
        `groups` with those that code different images together.
      paths: copies of `results.json`, of which the others are left out.
    """
    runs = {n: each for n, each in read(paths).items() if kind(each) == section}
    columns, rows_of = {
        "results": (RESULTS_COLUMNS, lambda name, results: [row(name, results)]),
        "zoo": (ZOO_COLUMNS, zoo_rows),
        "groups": (GROUP_COLUMNS, lambda _, results: group_rows(results)),
    }[section]
    rows = [cells for name, results in runs.items() for cells in rows_of(name, results)]
    told = {
        "results": lambda results: "",
        "zoo": lambda results: f" (seed {results['seed']}; {times(results)})",
        "groups": lambda results: f" (seed {results['seed']})",
    }[section]
    listed = [f"- `{n}`{told(each)}: `{each['command']}`" for n, each in runs.items()]
    setups = "; ".join(sorted({setup(results) for results in runs.values()}))
    parts = [
        sections.table(columns, rows),
        f"Measured with {setups}.",
        "\n".join(listed),
    ]
    return "\n\n".join(parts)


def setup(content: dict[str, Any]) -> str:
    """Versions and machine of a run or a sweep."""
    versions, machine = content["versions"], content["machine"]
    return (
        f"jax {versions['jax']}, flax {versions['flax']}, Python {versions['python']} "
        f"on {machine['cores']} cores, device {machine['device']}"
    )
