"""Seconds of compilation are those of the context."""

import jax
import jax.numpy as jnp

from coded_jax.runs.compile_clock import compile_clock


def compile_something():
    jax.jit(lambda x: jnp.sin(x) + 1).lower(jnp.ones(3)).compile()


def test_compilation_within_the_context_counts():
    with compile_clock() as clock:
        assert clock.seconds == 0
        compile_something()
        first = clock.seconds
        assert first > 0
        compile_something()
        assert clock.seconds > first
    end = clock.seconds
    compile_something()
    assert clock.seconds == end or not hasattr(
        jax.monitoring, "unregister_event_duration_listener"
    )
