"""Checks of arguments: the error is one line that names what was given."""

import jax.numpy as jnp
import numpy as np
import pytest

from coded_jax.checks import is_integer, require, require_shape, require_sizes


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3), jnp.int32(3)])
def test_integers(value):
    assert is_integer(value)
    assert [type(size) for size in require_sizes("sizes", (value,), "B")] == [int]


@pytest.mark.parametrize("value", [True, np.True_, jnp.array(True), 3.0, "3", None])
def test_what_is_no_integer(value):
    assert not is_integer(value)


@pytest.mark.parametrize("sizes", [3, (1, 2, 3), (0, 2)])
def test_sizes(sizes):
    with pytest.raises(ValueError, match="^shape: .* given, .H, W., whole numbers"):
        require_sizes("shape", sizes, "H", "W")


@pytest.mark.parametrize("array", [np.zeros((2, 4), "f"), np.zeros(3, "f"), [[1, 2]]])
def test_shapes(array):
    require_shape("labels", np.zeros((7, 3)), ("B", 3))
    with pytest.raises(ValueError, match=r"^labels: .* given, .*\[B, 3\] accepted$"):
        require_shape("labels", array, ("B", 3))


def test_an_array_stands_on_one_line():
    with pytest.raises(ValueError) as error:
        require("mask", np.zeros((9, 9)), False, "none")
    assert "\n" not in str(error.value)
