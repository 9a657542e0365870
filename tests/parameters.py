"""Parameters of tests, of which the long run has more than the fast one."""

import pytest

LONG = pytest.mark.long


def long(*values):
    """Returns the values as those that `pytest -m long` alone tries."""
    return [
        pytest.param(*(value if isinstance(value, tuple) else (value,)), marks=LONG)
        for value in values
    ]
