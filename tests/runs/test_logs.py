"""What a run records, and what it shows with and without a terminal."""

import io
import json
import subprocess
import sys

import numpy as np
import pytest
from rich.console import Console

from coded_jax.runs.logs import PhaseLog
from coded_jax.runs.progress import Planned, live_table


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


def test_a_narrow_terminal_shows_whole_values(tmp_path):
    screen = Console(file=io.StringIO(), force_terminal=True, width=80)
    phases = {"no_parity_2": Planned(12885, 12885)}
    with live_table(screen, phases=phases) as table:
        with phase_log(tmp_path, "no_parity_2", table, 12885) as log:
            log.start(0)
            log.log(12000, {"loss": 0.06251})
            scores = {f"accuracy_{l}_lost": 0.99 for l in range(3)}
            log.log(12885, {"loss": 0.06251, "validation_accuracy": 0.98, **scores})
    shown = screen.file.getvalue()
    assert "…" not in shown
    for text in ("1 of 1: training no_parity, seed 2", "100%", "0.06251", "took "):
        assert text in shown
    assert "99.00 99.00 99.00" in shown


def test_the_phases_of_a_run_are_known_from_the_start(tmp_path):
    now = [0.0]
    sizes = {"base": Planned(100, 6400), "code": Planned(200, 12800)}
    phases = {**sizes, "no_parity": Planned(200, 12800), "evaluation": Planned(3, 0)}
    screen = console(True)
    screen.get_time = lambda: now[0]
    with live_table(screen, phases=phases) as table:
        assert table.time_left() is None

        def log_phase(name, seconds_of_start, pace):
            with phase_log(tmp_path, name, table, phases[name].steps) as log:
                log.start(0)
                now[0] += seconds_of_start
                log.log(10, {"loss": 1.0})  # what is compiled until then is no pace
                for step in range(20, phases[name].steps + 1, 10):
                    now[0] += 10 * pace
                    log.log(step, {"loss": 1.0})
                    yield step

        *_, last = (table.time_left() for step in log_phase("base", 5, 0.5))
        assert last == (pytest.approx(400 * 0.5), True)  # a code may be slower
        left = {step: table.time_left() for step in log_phase("code", 7, 2.0)}
        assert left[50] == (pytest.approx(150 * 2 + 200 * 2), False)
        assert left[200] == (pytest.approx(200 * 2), False)
        assert len(table.tasks) == 4


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


@pytest.mark.long
def test_tensorboard_brings_no_pytorch(tmp_path):
    pytest.importorskip("tensorboardX")
    code = f"""
import sys
from pathlib import Path
from coded_jax.runs import logs
writer = logs._event_writer(Path({str(tmp_path)!r}))
writer.add_scalar("loss", 1.0, 1)
writer.close()
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    assert list(tmp_path.glob("events*"))
