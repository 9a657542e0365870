"""What a run records, and what it shows with and without a terminal."""

import contextlib
import json

import pytest
from rich.console import Console

from coded_jax.runs.progress import LiveTable, PhaseLog


@contextlib.contextmanager
def logging(folder, **options):
    """Logs a phase of 200 steps."""
    rate = lambda step: 0.5 / (1 + step)
    sizes = {"steps": 200, "batch_size": 64}
    with (
        LiveTable(Console(quiet=True)) as table,
        PhaseLog(folder, "code", table, **sizes, rate=rate, **options) as log,
    ):
        yield log


def test_resuming_drops_what_the_checkpoint_does_not_cover(tmp_path):
    file, cut_short = tmp_path / "metrics.jsonl", '{"phase": "code", "st'
    logged = [("base", 50), ("base", 100), ("code", 50), ("code", 100), ("code", 150)]
    records = [{"phase": phase, "step": step, "loss": 1.0} for phase, step in logged]
    file.write_text("".join(json.dumps(x) + "\n" for x in records) + cut_short)
    with logging(tmp_path) as log:
        log.start(100)
        log.log(149, {"loss": 0.5})
        log.log(200, {"loss": 0.25, "validation_accuracy": 0.5})
    *kept, first, last = map(json.loads, file.read_text().splitlines())
    assert kept == records[:4]
    assert (first["step"], first["loss"], last["step"]) == (149, 0.5, 200)
    assert first["learning_rate"] == pytest.approx(0.5 / 150)
    assert first["images_per_second"] > 0
    assert "images_per_second" not in last  # it would count the validation's time
