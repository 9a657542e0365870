"""What every error of a wrong argument has in common."""

import contextlib
import re

import pytest


@contextlib.contextmanager
def refused(name, error=ValueError):
    """Expects an error of one line that begins with the argument's name."""
    with pytest.raises(error, match=rf"^{re.escape(name)}: ") as raised:
        yield
    assert "\n" not in str(raised.value)
