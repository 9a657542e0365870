"""Finished runs as arguments of scripts."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from coded_jax.checks import require
from coded_jax.runs.reading import evaluated_part
from coded_jax.runs.workdir import FLAGS, RESULTS

ALIKE: dict[str, Callable[[dict[str, Any]], Any]] = {
    "base models or precisions": lambda x: (
        x["dataset"],
        *(x["config"][name] for name in ("base_model", "base_width", "precision")),
        *(x["base"][f"{part}_accuracy"] for part in ("test", "validation")),
    ),
    "pieces": lambda x: (
        f"of {'groups of images' if x['config']['split'] == 'group' else 'an image'}"
    ),
    "stage_losses": lambda x: x["config"]["stage_losses"],
}
"""Values of a run that are the same in all runs that are compared."""


def read_current(path: Path) -> dict[str, Any]:
    """Returns the content of a `results.json` with all that this version writes.

    Args:
      path: a finished run's workdir, or a copy of that file.

    Raises:
      ValueError: it is neither, or an older version wrote it.
    """
    try:
        results = json.loads((path / RESULTS if path.is_dir() else path).read_text())
    except (OSError, ValueError):
        results = {}
    given = f"runs: {str(path)!r} given"
    if "summary" not in results:
        defect = "holds no results" if path.exists() else "does not exist"
        if (path / FLAGS).exists() and not (path / RESULTS).exists():
            again = f"run.py --flagfile={path / FLAGS} goes on with it"
            defect = f"is not finished ({again})"
        accepted = "workdirs of finished runs or files of results.json accepted"
        raise ValueError(f"{given}, which {defect}; {accepted}")
    if "rounds" not in results.get("costs", {}).get("code", {}):
        raise ValueError(
            f"{given}, results.json of this version accepted; finished runs are "
            "evaluated again by their command"
        )
    return results


def read_published(path: Path) -> dict[str, Any]:
    """Returns the content of a `results.json` that may stand in a published table.

    Raises:
      ValueError: see `read_current`; or the run was evaluated for a search, on the
        validation part.
    """
    results = read_current(path)
    accepted = "runs with --evaluated=test, none of a search,"
    require("runs", str(path), evaluated_part(results) == "test", accepted)
    return results


def read_runs(paths: Sequence[str | Path]) -> list[dict[str, Any]]:
    """Returns the content of each `results.json`, of runs that can be compared.

    Args:
      paths: workdirs of finished runs, or copies of that file.

    Raises:
      ValueError: there is none; see `read_published`; or two runs differ in their base
        model, in how they make pieces, or in the losses of a stage.
    """
    runs = [read_published(Path(path)) for path in paths]
    require("runs", [], bool(runs), "one or more workdirs")
    for name, of in ALIKE.items():
        values = {str(of(results)) for results in runs}
        if len(values) > 1:
            given = ", ".join(sorted(values))
            raise ValueError(f"runs: of different {name} ({given}), one accepted")
    return runs
