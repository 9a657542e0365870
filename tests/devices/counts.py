"""Numbers of simulated devices."""

import jax
import pytest


def devices(count: int) -> int:
    """Returns `count`, or skips the test where there are not so many devices."""
    if len(jax.devices()) < count:
        pytest.skip(f"needs {count} devices")
    return count
