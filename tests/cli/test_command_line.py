"""The command line as it is recorded."""

import signal
import sys
import time

import pytest

from coded_jax.cli.command_line import command_text, heed_ctrl_c


@pytest.mark.parametrize(
    "argv, text",
    [
        (["/x/coded_jax/__main__.py", "run", "--k=2"], "python -m coded_jax run --k=2"),
        (["run.py", "--vary=k=2 4"], "python run.py '--vary=k=2 4'"),
    ],
)
def test_the_recorded_command_is_the_one_typed(argv, text):
    assert command_text(argv) == text


class Interrupted:
    """Python cannot raise what happens here, as in a callback of the collector."""

    def __del__(self):
        raise KeyboardInterrupt


def test_ctrl_c_is_not_lost_where_python_cannot_raise_it(monkeypatch):
    monkeypatch.setattr(sys, "unraisablehook", heed_ctrl_c)
    # Shells have background jobs ignore it.
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            Interrupted()
            for _ in range(100):  # it does not end a sleep
                time.sleep(0.05)
    finally:
        signal.signal(signal.SIGINT, former)
