"""Pixels are scaled by the statistics of the training images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coded_jax.inference.pixels import normalise


def test_normalise_closed_form():
    images = np.array([[[0, 51], [255, 102]]], np.uint8)
    result = jax.jit(normalise)(images, (0.5, 0.2), (0.25, 0.1))
    assert result.dtype == jnp.float32
    np.testing.assert_allclose(result, [[[-2, 0], [2, 2]]], atol=1e-6)


def test_normalise_refuses_scaled_images():
    with pytest.raises(ValueError, match="float32; accepted: uint8"):
        normalise(np.zeros((1, 2, 2, 1), np.float32), (0.0,), (1.0,))
