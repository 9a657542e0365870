"""Rows that a benchmark has measured so far, for a second start to go on from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.rows import Row


class Store:
    """Rows by measurement, kept beside the file that they will stand in.

    Attributes:
      rows: `{measurement: its rows}`.
    """

    def __init__(self, output: Path, origin: dict[str, Any]) -> None:
        """Takes up the rows of a former start.

        Args:
          output: the file to be written in the end.
          origin: machine, versions, commit and command; rows of another one are
            dropped, and so are those of code that no commit has.
        """
        self.path = output.with_suffix(".partial")
        self.rows: dict[str, list[Row]] = {}
        self._origin = json.loads(json.dumps(origin))
        committed = str(origin["commit"]).isalnum() and origin["commit"] is not None
        lines = self.path.read_text().splitlines() if self.path.exists() else ["{}"]
        if committed and json.loads(lines[0]) == self._origin:
            self.rows = dict(map(json.loads, lines[1:]))
        else:
            output.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text(json.dumps(self._origin) + "\n")

    def add(self, measurement: str, rows: list[Row]) -> None:
        """Keeps the rows of a measurement."""
        self.rows[measurement] = rows
        with self.path.open("a") as file:
            file.write(json.dumps([measurement, rows]) + "\n")

    def drop(self) -> None:
        """Removes the file: the rows stand elsewhere."""
        self.path.unlink(missing_ok=True)
