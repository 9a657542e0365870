"""Seconds that JAX compiles, as its own monitoring tells them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import jax

EVENTS = (
    "/jax/core/compile/jaxpr_to_mlir_module_duration",
    "/jax/core/compile/backend_compile_duration",
)
"""Lowering, and compilation or the reading of a program that the disk keeps."""


class CompileClock:
    """Adds up what programs take to compile.

    Attributes:
      seconds: so far, of all threads.
    """

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self, event: str, duration: float, **_: Any) -> None:
        if event in EVENTS:
            self.seconds += duration


@contextlib.contextmanager
def compile_clock() -> Iterator[CompileClock]:
    """Yields a clock that runs until the end of the context."""
    clock, monitoring = CompileClock(), jax.monitoring
    monitoring.register_event_duration_secs_listener(clock)
    try:
        yield clock
    finally:
        # Not in every version; a clock that nobody reads does no harm.
        if forget := getattr(monitoring, "unregister_event_duration_listener", None):
            forget(clock)
