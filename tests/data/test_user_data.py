"""What is wrong with data is one line, not a wrong answer; streams are cut alike."""

import dataclasses

import numpy as np
import pytest

from coded_jax.data.user_data import (
    collect,
    cut,
    require_dataset,
    require_split,
    require_statistics,
)
from coded_jax.types import Dataset, Split
from tests.errors import refused

CLASSES = 3


def part(size, dtype=np.uint8):
    return Split(np.ones((size, 6, 4, 2), dtype), np.arange(size) % CLASSES)


SOUND = Dataset("own", CLASSES, part(6), part(3), part(4), (0.5, 0.1), (0.3, 1.0))


def labelled(name, labels):
    return {name: dataclasses.replace(getattr(SOUND, name), labels=labels)}


def imaged(name, *shape, dtype=np.uint8):
    split = dataclasses.replace(getattr(SOUND, name), images=np.zeros(shape, dtype))
    return {name: split}


def test_sound_data_sets_pass():
    require_dataset(SOUND)
    require_dataset(dataclasses.replace(SOUND, mean=np.zeros(2), std=[0.1, 0.2]))
    normalised = {n: part(3, np.float32) for n in ("train", "validation", "test")}
    require_dataset(dataclasses.replace(SOUND, **normalised, mean=None, std=None))
    with refused("mean, std"):
        require_dataset(dataclasses.replace(SOUND, **normalised))
    require_split(part(3), CLASSES, "data", positions=(), values=False)
    assert require_statistics(0.5, np.float32(0.25), 1) == ((0.5,), (0.25,))


@pytest.mark.parametrize(
    "name, changes",
    [
        ("train.labels", labelled("train", np.zeros(5, int))),
        ("train.labels", labelled("train", np.array([0, 1, 2, -1, 0, 1]))),
        ("test.labels", imaged("test", 3, 6, 4, 2)),
        ("validation.images", {"validation": part(0)}),
        ("test.images", imaged("test", 4, 6, 5, 2)),
        ("test.images", {"test": part(4, np.float32)}),
        ("mean", {"mean": (127.5, 30.0)}),
        ("std", {"std": (0.0, 0.3)}),
        ("classes", {"classes": 2.5}),
    ],
)
def test_what_is_wrong_is_named(name, changes):
    with refused(name):
        require_dataset(dataclasses.replace(SOUND, **changes))


IMAGES = np.arange(23, dtype=np.uint8).reshape(-1, 1, 1, 1)
LABELS = np.arange(23) % 3


def in_batches(size):
    return (
        (IMAGES[start : start + size], LABELS[start : start + size])
        for start in range(0, len(LABELS), size)
    )


@pytest.mark.parametrize("size", [1, 7, 50])
def test_a_stream_and_arrays_are_cut_alike(size):
    for data in (Split(IMAGES, LABELS), (IMAGES, LABELS), in_batches(size)):
        chunks = list(cut(data, 5))
        assert [len(part.labels) for part in chunks] == [5, 5, 5, 5, 3]
        rows = np.concatenate([part.images for part in chunks])
        np.testing.assert_array_equal(rows, IMAGES)
        rows = np.concatenate([part.labels for part in chunks])
        np.testing.assert_array_equal(rows, LABELS)
    np.testing.assert_array_equal(collect(in_batches(size)).images, IMAGES)


def test_what_is_no_data_is_refused():
    uneven = [(IMAGES, LABELS[:-1])]
    with refused("data"):
        collect(uneven)
    mixed = [(IMAGES, LABELS), (IMAGES.astype("f"), LABELS)]
    with pytest.raises(TypeError, match="Cannot cast array data"):
        collect(mixed)
