"""Finished runs with one base model, as arguments of scripts that compare them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from coded_jax.workdir import RESULTS


def read_runs(arguments: list[str]) -> list[dict[str, Any]]:
    """The content of each `results.json`.

    Args:
      arguments: workdirs of finished runs, or copies of that file.

    Raises:
      ValueError: a file is missing, or two runs differ in their base model, or in how
        they make pieces.
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
    bases = {
        (
            r["dataset"],
            r["config"]["base_model"],
            r["config"]["base_width"],
            r["config"]["precision"],
            r["base"]["test_accuracy"],
            r["base"]["validation_accuracy"],
        )
        for r in runs
    }
    if len(bases) > 1:
        raise ValueError(
            f"runs: of different base models or precisions ({sorted(bases)})"
        )
    if len({r["config"]["split"] for r in runs}) > 1:
        raise ValueError(
            "runs: some of pieces of an image and some of groups of images given, one "
            "kind accepted"
        )
    if len({r["config"]["stage_losses"] for r in runs}) > 1:
        raise ValueError("runs: of other stage_losses each, the same ones accepted")
    return runs
