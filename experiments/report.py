"""Makes the README's results tables from the `results.json` files of finished runs.

python experiments/report.py experiments/results/*.json            # print
python experiments/report.py --readme=README.md experiments/results/*.json
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from absl import app, flags

from coded_jax.display import percent
from coded_jax.workdir import write_atomically

README = flags.DEFINE_string("readme", None, "file whose results section is replaced")

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
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


def replace_section(text: str, section: str) -> str:
    """`text` with what stands between the two markers replaced.

    Raises:
      ValueError: a marker is missing.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"readme: a file with {BEGIN} and {END} accepted")
    return f"{before}{BEGIN}\n\n{section}\n\n{END}{after}"


def main(argv: list[str]) -> None:
    paths = [Path(argument) for argument in argv[1:]]
    if not paths:
        raise app.UsageError("no results.json file given")
    section = report(paths)
    if README.value is None:
        print(section)
    else:
        readme = Path(README.value)
        write_atomically(readme, replace_section(readme.read_text(), section))


if __name__ == "__main__":
    app.run(main)
