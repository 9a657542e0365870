"""What a run records, and what it shows with and without a terminal."""

import io
import json

from rich.console import Console

from coded_jax.logs import PhaseLog, progress_bars


def console(terminal):
    return Console(file=io.StringIO(), force_terminal=terminal, width=120)


def lines(folder):
    return [json.loads(x) for x in (folder / "metrics.jsonl").read_text().splitlines()]


def test_resuming_drops_what_the_checkpoint_does_not_cover(tmp_path):
    cut_short = '{"phase": "code", "st'
    logged = [("base", 50), ("base", 100), ("code", 50), ("code", 100), ("code", 150)]
    records = [{"phase": phase, "step": step, "loss": 1.0} for phase, step in logged]
    text = "".join(json.dumps(record) + "\n" for record in records) + cut_short
    (tmp_path / "metrics.jsonl").write_text(text)
    with (
        progress_bars(console(False)) as bars,
        PhaseLog(tmp_path, "code", 200, bars) as log,
    ):
        log.start(100)
        log.log(150, {"loss": 0.5})
    assert lines(tmp_path) == [
        *records[:4],
        {"phase": "code", "step": 150, "loss": 0.5},
    ]


def test_without_a_terminal_a_few_lines_and_no_bars(tmp_path):
    screen = console(False)
    with progress_bars(screen) as bars, PhaseLog(tmp_path, "base", 500, bars) as log:
        log.start(50)
        for step in range(100, 501, 50):
            log.log(step, {"loss": 0.25, "validation_accuracy": 0.5})
    assert screen.file.getvalue().splitlines() == [
        "base: 500 steps, resumed at step 50",
        "base: step 500/500  loss 0.25  validation_accuracy 0.5",
    ]


def test_on_a_terminal_a_bar(tmp_path):
    screen = console(True)
    with progress_bars(screen) as bars, PhaseLog(tmp_path, "base", 500, bars) as log:
        log.start(0)
        log.log(250, {"loss": 0.125})
    shown = screen.file.getvalue()
    assert "250/500" in shown and "loss 0.125" in shown and "━" in shown


def test_tensorboard_events(tmp_path):
    with (
        progress_bars(console(False)) as bars,
        PhaseLog(tmp_path, "base", 10, bars) as log,
    ):
        log.start(0)
        log.log(10, {"loss": 0.125})
    (events,) = (tmp_path / "events" / "base").iterdir()
    assert b"base/loss" in events.read_bytes()
