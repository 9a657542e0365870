"""The command line as it is recorded."""

import signal
import sys
import time

import pytest

from coded_jax.cli.command_line import heed_ctrl_c


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
