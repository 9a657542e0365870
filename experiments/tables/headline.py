"""The one table of the README: a few rows of the tables of results."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from coded_jax.report.formatting import measure_text, percent
from coded_jax.runs.reading import code_name
from tables import markdown, result_tables, stored, targets

ROWS = {
    "frontier": ("lenet5_default_k2_r1", "lenet5_default_k4_r2"),
    "table5": ("table5_k2_r1_systematic", "table5_k4_r2_systematic"),
    "deep": (
        *("vgg16_ours_k2_r1", "vgg16_ours_k4_r2"),
        *("resnet18_ours_k2_r1", "mobilenet_ours_k2_r1", "imagenette_ours_k4_r2"),
        *("fashion_vgg16_all_ours_k4_r2", "fashion_resnet18_ours_k4_r2"),
    ),
}

RIVALS = ("no_parity", "zero_fill")

COLUMNS = (
    "data, network",
    "k, r",
    "code",
    "base",
    "r lost, mean (worst)",
    "no parity",
    "zero-fill",
    "work",
    "target",
)


def section() -> str:
    """Returns the table, how it was measured, and the command of a row."""
    runs = {
        name: with_rivals(runs, name)
        for table, names in ROWS.items()
        for runs in [result_tables.read(stored.folder_of(table))]
        for name in names
    }
    rows = [row(results) for results in runs.values()]
    command = "python experiments/run.py --flagfile=NAME.flags"
    names = ", ".join(dict.fromkeys(map(flags_text, runs.values())))
    return "\n\n".join(
        [
            markdown.table(COLUMNS, rows),
            f"{stored.origin_text([*runs.values()])} All test images, all patterns of "
            "r losses, each for the whole request, one seed, or mean ± standard "
            "deviation of five. *Target*: on MNIST above the paper and no parity, "
            "elsewhere at most so many points below the base, in the mean, and "
            "in the worst where there are two. Each "
            f"row by `{command}`: {names}.",
        ]
    )


def with_rivals(runs: dict[str, dict[str, Any]], name: str) -> dict[str, Any]:
    """Returns a run with the rivals that have runs of their own: of `A_ours_B`, without
    parity that of `A_no_parity_B`, zero-fill a baseline of `A_untrained_B`.

    Args:
      runs: by name.
      name: of the run.
    """
    own = dict(runs[name]["baselines"])
    others = {x: name.replace("_ours_", f"_{x}_") for x in ("no_parity", "untrained")}
    if others["no_parity"] in runs.keys() - {name}:
        own["no_parity"] = runs[others["no_parity"]]["summary"]
    if others["untrained"] in runs.keys() - {name}:
        own["zero_fill"] = runs[others["untrained"]]["baselines"]["zero_fill"]
    return runs[name] | {"baselines": own}


def flags_text(results: dict[str, Any]) -> str:
    """Returns the flagfile of a run, and the flags beside it but its folder."""
    flags = [word for word in shlex.split(results["command"]) if word[:2] == "--"]
    (flagfile,) = (x for x in flags if x.startswith("--flagfile="))
    others = [x for x in flags if x != flagfile and not x.startswith("--workdir=")]
    name = f"`{Path(flagfile.partition('=')[2]).stem}`"
    return f"{name} with `{' '.join(others)}`" if others else name


def row(results: dict[str, Any]) -> list[str]:
    """Returns the cells of a run, with as many results lost as it has parity pieces."""
    config, split = results["config"], results["split"]
    lost = str(split["r"])
    code = results["summary"][lost]
    table = result_tables.kind(results)
    rivals = (result_tables.baseline(results, x, lost) for x in RIVALS)
    target = targets.deep(results, lost)[2:-1]
    if not target and results["dataset"] in targets.DEEP_DATA:
        target = targets.NONE  # too dear, or too little of the network
    return [
        f"{stored.data_of(results)}, {config['base_model']} x {config['base_width']:g}",
        f"{split['k']}, {split['r']}",
        code_name(config, config["code"]),
        percent(results["base"]["test_accuracy"]),
        f"**{measure_text(code, 'mean')}** ({measure_text(code, 'worst')})",
        *rivals,
        result_tables.work_text(results),
        target or result_tables.target_text(table, results, lost),
    ]
