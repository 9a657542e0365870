"""Flags, data and report of the scripts that measure a service of a finished run."""

from __future__ import annotations

import functools
import json
import time
from typing import Any

import jax
from absl import flags

from coded_jax import data
from coded_jax.cli.command_line import origin
from coded_jax.devices import startup
from coded_jax.runs import workdir
from coded_jax.runs.workdir import absolute
from coded_jax.types import Split

WORKDIR = flags.DEFINE_string("workdir", None, "of a finished run", required=True)
OUTPUT = flags.DEFINE_string("output", None, "folder of the report", required=True)
DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "folder of prepared TFDS data; TFDS_DATA_DIR if not given"
)


class Report:
    """A report on the service of a run, in the folder of `--output`.

    Attributes:
      results: the content of the run's `results.json`.
    """

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self.folder = absolute(OUTPUT.value, "output")
        self.results = workdir.read_results(absolute(WORKDIR.value))
        startup.keep_compilations(None)
        self.folder.mkdir(parents=True, exist_ok=True)

    @functools.cached_property
    def test(self) -> Split:
        """The test images of the run."""
        size = self.results["config"].get("image_size")
        return data.load(self.results["dataset"], DATA_DIR.value, size).test

    def write(self, name: str, **measured: Any) -> dict[str, Any]:
        """Writes what was measured, and where it is from, as JSON; returns both."""
        content = {
            **origin(),
            "device": jax.devices()[0].device_kind,
            "split": self.results["split"],
            **measured,
            "timing": {"seconds": {"total": time.monotonic() - self._begun}},
        }
        workdir.write_atomically(self.folder / name, json.dumps(content, indent=1))
        return content
