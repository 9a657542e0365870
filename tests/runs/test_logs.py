"""What a run records, and what it shows with and without a terminal."""

import io
import json

import numpy as np
from rich.console import Console

from coded_jax.runs.logs import PhaseLog
from coded_jax.runs.progress import live_table


def console(terminal):
    return Console(file=io.StringIO(), force_terminal=terminal, width=140)


def phase_log(folder, phase, table, steps, **options):
    rate = lambda step: 0.5 / (1 + step)
    sizes = {"steps": steps, "batch_size": 64}
    return PhaseLog(folder, phase, table, **sizes, rate=rate, **options)


def lines(folder):
    return [json.loads(x) for x in (folder / "metrics.jsonl").read_text().splitlines()]


def test_resuming_drops_what_the_checkpoint_does_not_cover(tmp_path):
    cut_short = '{"phase": "code", "st'
    logged = [("base", 50), ("base", 100), ("code", 50), ("code", 100), ("code", 150)]
    records = [{"phase": phase, "step": step, "loss": 1.0} for phase, step in logged]
    text = "".join(json.dumps(record) + "\n" for record in records) + cut_short
    (tmp_path / "metrics.jsonl").write_text(text)
    with (
        live_table(console(False)) as table,
        phase_log(tmp_path, "code", table, 200) as log,
    ):
        log.start(100)
        log.log(150, {"loss": 0.5})
    *kept, last = lines(tmp_path)
    assert kept == records[:4]
    assert (last["step"], last["loss"]) == (150, 0.5)


def test_learning_rate_and_speed_are_recorded(tmp_path):
    with (
        live_table(console(False)) as table,
        phase_log(tmp_path, "code", table, 100) as log,
    ):
        log.start(0)
        log.log(49, {"loss": 0.5})
        log.log(100, {"loss": 0.25, "validation_accuracy": 0.5})
    first, last = lines(tmp_path)
    assert first["learning_rate"] == 0.01 and last["learning_rate"] == 0.005
    assert first["images_per_second"] > 0
    assert "images_per_second" not in last  # it would count the validation's time


def test_tensorboard_has_metrics_and_pictures(tmp_path):
    drawn = []

    def picture(params):
        drawn.append(params)
        return np.zeros((12, 16, 3), np.uint8)

    with (
        live_table(console(False)) as table,
        phase_log(tmp_path, "code", table, 10, picture=picture) as log,
    ):
        log.start(0)
        log.log(10, {"loss": 0.125, "validation_accuracy": 0.5, "accuracy_1_lost": 0.4})
        log.end_epoch(10, "parameters")
    (events,) = (tmp_path / "events" / "code").iterdir()
    content = events.read_bytes()
    for name in ("loss", "learning_rate", "accuracy_1_lost", "original_arrived"):
        assert b"code/" + name.encode() in content
    assert drawn == ["parameters"] and b"PNG" in content
