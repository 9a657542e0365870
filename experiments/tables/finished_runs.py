"""Finished runs as arguments of scripts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from coded_jax.runs.reading import evaluated_part
from coded_jax.runs.workdir import FLAGS, RESULTS

BASE = ("base_model", "base_width", "precision")


def read_results(path: Path) -> dict[str, Any]:
    """Returns the content of a `results.json`.

    Args:
      path: a finished run's workdir, or a copy of that file.

    Raises:
      ValueError: it is neither.
    """
    try:
        results = json.loads((path / RESULTS if path.is_dir() else path).read_text())
    except (OSError, ValueError):
        results = None
    if not isinstance(results, dict) or "summary" not in results:
        defect = "holds no results" if path.exists() else "does not exist"
        if (path / FLAGS).exists() and not (path / RESULTS).exists():
            again = f"run.py --flagfile={path / FLAGS} goes on with it"
            defect = f"is not finished ({again})"
        raise ValueError(
            f"runs: {str(path)!r} given, which {defect}; workdirs of finished runs or "
            "files of results.json accepted"
        )
    return results


def read_current(path: Path) -> dict[str, Any]:
    """Returns the content of a `results.json` with all that this version writes.

    Raises:
      ValueError: see `read_results`; or an older version wrote it.
    """
    results = read_results(path)
    if "rounds" not in results.get("costs", {}).get("code", {}):
        raise ValueError(
            f"runs: {str(path)!r} given, results.json of this version accepted; "
            "finished runs are evaluated again by their command"
        )
    return results


def require_published(results: dict[str, Any], path: Path) -> None:
    """Raises ValueError if a run was evaluated for a search, on the validation part."""
    if (part := evaluated_part(results)) != "test":
        raise ValueError(
            f"runs: {str(path)!r} given, evaluated on the {part} part for a search; "
            "runs with --evaluated=test accepted"
        )


def read_published(path: Path) -> dict[str, Any]:
    """Returns the content of a `results.json` that may stand in a published table.

    Raises:
      ValueError: see `read_results` and `require_published`.
    """
    results = read_results(path)
    require_published(results, path)
    return results


def read_runs(arguments: list[str]) -> list[dict[str, Any]]:
    """Returns the content of each `results.json`, of runs with one base model.

    Args:
      arguments: workdirs of finished runs, or copies of that file.

    Raises:
      ValueError: a file is missing or of a search, or two runs differ in their base
        model, or in how they make pieces.
    """
    runs = [read_current(Path(argument)) for argument in arguments]
    for argument, results in zip(arguments, runs, strict=True):
        require_published(results, Path(argument))
    if not runs:
        raise ValueError("runs: none given, one or more workdirs accepted")
    bases = {
        (
            r["dataset"],
            *(r["config"][x] for x in BASE),
            *(r["base"][f"{x}_accuracy"] for x in ("test", "validation")),
        )
        for r in runs
    }
    if len(bases) > 1:
        raise ValueError(
            f"runs: of different base models or precisions ({sorted(bases)})"
        )
    if len({r["config"]["split"] == "group" for r in runs}) > 1:
        raise ValueError(
            "runs: some of pieces of an image and some of groups of images given, one "
            "kind accepted"
        )
    if len({r["config"]["stage_losses"] for r in runs}) > 1:
        raise ValueError("runs: of other stage_losses each, the same ones accepted")
    return runs
