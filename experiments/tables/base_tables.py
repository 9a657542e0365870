"""The table of the base models that are kept for codes on deep networks."""

from __future__ import annotations

import json
from pathlib import Path

from coded_jax.runs.kept_base import RECORD
from tables import markdown, stored, targets

BASES = stored.EXPERIMENTS / "bases"


def section(folder: Path = BASES) -> str:
    """Returns a row for each base model that is kept, and where they are from."""
    records = {
        path.parent.name: json.loads(path.read_text())
        for path in sorted(folder.glob(f"*/{RECORD}"))
    }
    headings = ["network", "data", "images", "MB", "epochs", "seconds"]
    headings += ["validation, %", "test, %", "target", "folder"]
    rows = []
    for name, record in records.items():
        network, base = record["network"], record["base"]
        flags = record["provenance"]["flags"]
        epochs = f"{network['epochs']:g}"
        if "base_start" in flags:
            epochs += f" after `{Path(flags['base_start']).name}`"
        test = 100 * base["test_accuracy"]
        height, width, _ = record["image_shape"]
        rows.append(
            [
                f"{network['model']} x {network['width']:g}",
                stored.data_of(record),
                f"{height}x{width}",
                f"{2 * network['numbers'] / 1e6:.1f}",
                epochs,
                f"{record['timing']['seconds']['base']:.0f}",
                f"{100 * base['validation_accuracy']:.2f}",
                f"{test:.2f}",
                targets.base(record["dataset"], network["model"], test),
                f"`experiments/bases/{name}`",
            ]
        )
    commands = "\n".join(f"- `{record['command']}`" for record in records.values())
    origin = stored.origin_text([*records.values()])
    return "\n\n".join([markdown.table(headings, rows), origin, commands])
