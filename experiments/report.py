"""Makes the README's tables from `results.json` files and from a benchmark.

python experiments/report.py experiments/results/*.json            # print
python experiments/report.py --readme=README.md experiments/results/*.json
python experiments/report.py --readme=README.md --benchmark=experiments/benchmark.json
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import benchmark_tables
from absl import app, flags
from benchmark_tables import EAGER, OURS

from coded_jax.display import percent
from coded_jax.workdir import write_atomically

README = flags.DEFINE_string("readme", None, "file whose sections are replaced")
BENCHMARK = flags.DEFINE_string("benchmark", None, "JSON file of benchmark.py")

PAPER = {(2, 1): "90.56", (4, 1): "96.85", (4, 2): "91.79"}  # Table V, MLP or Conv

HEADER = (
    "| k, r, l | code | recipe | base | mean | worst | zero-fill mean (worst) "
    "| no parity mean (worst) | paper | epochs | seed | wall time | run |\n"
    "|---|---|---|---|---|---|---|---|---|---|---|---|---|"
)


def order(results: dict[str, Any]) -> tuple:
    config = results["config"]
    return config["encoder"] != "mlp", config["recipe"], config["k"], config["r"]


def row(name: str, results: dict[str, Any]) -> str:
    config, split = results["config"], results["split"]
    lost = str(split["r"])
    coded = results["summary"][lost]

    def baseline(which: str) -> str:
        found = results["baselines"][which][lost]
        return f"{percent(found['mean'])} ({percent(found['worst'])})"

    paper = "-"
    if results["dataset"] == "mnist":
        paper = PAPER.get((split["k"], split["r"]), paper)
    cells = [
        f"{split['k']}, {split['r']}, {lost}",
        f"{network(config, 'encoder')} / {network(config, 'decoder')}",
        config["recipe"],
        percent(results["base"]["test_accuracy"]),
        f"**{percent(coded['mean'])}**",
        percent(coded["worst"]),
        baseline("zero_fill"),
        baseline("no_parity"),
        paper,
        f"{config['base_epochs']:g} + {config['epochs']:g}",
        str(results["seed"]),
        f"{results['timing']['seconds']['total']:.0f} s",
        f"`{name}`",
    ]
    return f"| {' | '.join(cells)} |"


def name_of(path: Path) -> str:
    """A run's name: of its workdir, or of a copy of its results."""
    return path.parent.name if path.name == "results.json" else path.stem


def network(config: dict[str, Any], part: str) -> str:
    """`mlp`, or `conv` with its width; channels where they are not the default."""
    words = [config[part], config[f"{part}_width"]]
    words += [config["decoder_channels"]] if part == "decoder" else []
    return " ".join(str(word) for word in words if word is not None)


def report(paths: list[Path]) -> str:
    """Markdown: the table, and below it the command of each run."""
    found = {name_of(path): json.loads(path.read_text()) for path in paths}
    if len(found) < len(paths):
        raise ValueError(f"files: {[str(p) for p in paths]} hold two runs of one name")
    runs = sorted(found.items(), key=lambda item: order(item[1]))
    table = "\n".join([HEADER, *(row(name, results) for name, results in runs)])
    commands = "\n".join(f"- `{name}`: `{r['command']}`" for name, r in runs)
    setups = sorted({setup(results) for results in found.values()})
    return f"{table}\n\nMeasured with {'; '.join(setups)}.\n\n{commands}"


def setup(results: dict[str, Any]) -> str:
    versions, machine = results["versions"], results["machine"]
    return (
        f"jax {versions['jax']}, flax {versions['flax']}, Python {versions['python']} "
        f"on {machine['cores']} cores, device {machine['device']}"
    )


def benchmark(report: dict[str, Any]) -> str:
    """Markdown: speed beside PyTorch's, of training and of inference.

    Args:
      report: the content of the JSON file that `benchmark.py` writes.
    """
    training = [
        "| code | batch | coded_jax, images/s | PyTorch eager, images/s | ratio "
        "| of best rounds | target |",
        "|---|---|---|---|---|---|---|",
    ]
    for group in benchmark_tables.grouped(report["training"]):
        ours, eager = group[OURS], group[EAGER]
        training.append(
            f"| {benchmark_tables.code(ours)} | {ours['batch']} "
            f"| {ours['images_per_second']:,.0f} | {eager['images_per_second']:,.0f} "
            f"| **{ours['ratio_to_eager']:.2f}** | {ours['fastest_ratio']:.2f} "
            f"| {benchmark_tables.TRAINING[ours['network']]} |"
        )
    inference = [
        "| code | lost | batch | coded_jax, ms | PyTorch eager, ms | ratio "
        "| of best rounds |",
        "|---|---|---|---|---|---|---|",
    ]
    for group in benchmark_tables.grouped(report["inference"]):
        ours, eager = group[OURS], group[EAGER]
        inference.append(
            f"| {benchmark_tables.code(ours)} | {ours['lost']} | {ours['batch']} "
            f"| {ours['ms']:.2f} | {eager['ms']:.2f} "
            f"| **{ours['ratio_to_eager']:.2f}** | {ours['fastest_ratio']:.2f} |"
        )
    versions, machine = report["versions"], report["machine"]
    setting = (
        f"Training a code:\n\n{{}}\n\nInference, with target 1:\n\n{{}}\n\n"
        f"Measured with jax {versions['jax']} and PyTorch "
        f"{report['pytorch']['version']} on {machine['cores']} cores "
        f"({machine['processor']}), device {machine['device']}, medians, by "
        f"`{report['command']}`."
    )
    return setting.format("\n".join(training), "\n".join(inference))


def replace_section(text: str, name: str, section: str) -> str:
    """`text` with what stands between the two markers of `name` replaced.

    Raises:
      ValueError: a marker is missing.
    """
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"readme: a file with {begin} and {end} accepted")
    return f"{before}{begin}\n\n{section}\n\n{end}{after}"


def main(argv: list[str]) -> None:
    paths = [Path(argument) for argument in argv[1:]]
    sections = {"results": report(paths)} if paths else {}
    if BENCHMARK.value is not None:
        found = json.loads(Path(BENCHMARK.value).read_text())
        sections["benchmark"] = benchmark(found)
    if not sections:
        raise app.UsageError("neither a results.json file nor --benchmark given")
    if README.value is None:
        print("\n\n".join(sections.values()))
        return
    readme = Path(README.value)
    text = readme.read_text()
    for name, section in sections.items():
        text = replace_section(text, name, section)
    write_atomically(readme, text)


if __name__ == "__main__":
    app.run(main)
