"""What is wrong with a data set is one line, not a wrong answer."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest

from coded_jax.data.checks import (
    require_dataset,
    require_images,
    require_split,
    require_statistics,
)
from coded_jax.types import Dataset, Split

CLASSES = 3


def part(size, dtype=np.uint8):
    return Split(np.ones((size, 6, 4, 2), dtype), np.arange(size) % CLASSES)


SOUND = Dataset("own", CLASSES, part(6), part(3), part(4), (0.5, 0.1), (0.3, 1.0))


def with_part(name, **fields):
    split = dataclasses.replace(getattr(SOUND, name), **fields)
    return {name: split}


def test_no_data_set():
    with pytest.raises(ValueError, match="^dataset: 'NoneType' given"):
        require_dataset(None)


def test_sound_data_sets_pass():
    require_dataset(SOUND)
    require_dataset(dataclasses.replace(SOUND, mean=np.zeros(2), std=[0.1, 0.2]))
    normalised = {n: part(3, np.float32) for n in ("train", "validation", "test")}
    require_dataset(dataclasses.replace(SOUND, **normalised, mean=None, std=None))
    with pytest.raises(
        ValueError, match=r"^mean, std: \(\(0.5, 0.1\), .*None for both"
    ):
        require_dataset(dataclasses.replace(SOUND, **normalised))


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            with_part("train", labels=np.zeros(5, int)),
            r"train.labels: int64 \[5\] given, an integer array \[6\], the class",
        ),
        (
            with_part("test", images=np.zeros((3, 6, 4, 2), np.uint8)),
            r"test.labels: int64 \[4\] given, an integer array \[3\]",
        ),
        (
            with_part("validation", labels=np.eye(3, dtype=int)),
            r"validation.labels: int64 \[3, 3\] given, an integer array \[3\]",
        ),
        (
            with_part("test", labels=np.zeros(4, np.float32)),
            r"test.labels: float32 \[4\] given, an integer array",
        ),
        (with_part("test", labels=[0, 1, 2, 0]), r"test.labels: list \[4\] given"),
        (
            with_part("train", labels=np.array([0, 1, 2, 3, 0, 1])),
            r"train.labels: 3 given, 0\.\.2 accepted",
        ),
        (
            with_part("train", labels=np.array([0, 1, 2, -1, 0, 1])),
            r"train.labels: -1 given, 0\.\.2 accepted",
        ),
        ({"validation": part(0)}, r"validation.images: uint8 \[0, 6, 4, 2\] given"),
        (
            with_part("test", images=np.zeros((4, 6, 4), np.uint8)),
            r"test.images: uint8 \[4, 6, 4\] given, one or more as uint8 \[N, H, W, C",
        ),
        (
            with_part("test", images=np.zeros((4, 6, 5, 2), np.uint8)),
            r"test.images: uint8 \[4, 6, 5, 2\] given, uint8 .* as in train",
        ),
        ({"test": part(4, np.float32)}, r"test.images: float32 .* given, uint8 \[N, 6"),
        ({"test": part(4, np.float64)}, r"test.images: float64 \[4, 6, 4, 2\] given"),
        ({"test": part(4, np.int32)}, r"test.images: int32 \[4, 6, 4, 2\] given"),
        ({"mean": (127.5, 30.0)}, r"mean: \(127.5, 30.0\) given, 2 numbers of 0 to 1"),
        (
            {"std": (76.5, 30.0)},
            r"std: .* 2 numbers of more than 0 to 1, of images / 2",
        ),
        ({"std": (0.0, 0.3)}, "std: .* more than 0"),
        ({"mean": (0.5,)}, "mean: .* 2 numbers"),
        ({"mean": (0.5, float("nan"))}, "mean: "),
        ({"mean": ("a", "b")}, "mean: "),
        ({"mean": np.full((2, 2), 0.5)}, "mean: "),
        ({"test": None}, "test: 'NoneType' given, a coded_jax.types.Split"),
        ({"test": (1, 2)}, "test: 'tuple' given, a coded_jax.types.Split"),
        ({"classes": 1}, "classes: 1 given"),
        ({"classes": 2.5}, "classes: 2.5 given"),
    ],
)
def test_what_is_wrong_is_one_line(changes, message):
    with pytest.raises(ValueError, match=f"^{message}") as error:
        require_dataset(dataclasses.replace(SOUND, **changes))
    assert "\n" not in str(error.value) and str(error.value).endswith("accepted")


@pytest.mark.parametrize(
    "convert", [list, np.array, jnp.array, lambda x: tuple(map(np.float32, x))]
)
def test_numbers_become_those_of_python(convert):
    """They are hashed and written to a file later, whatever held them."""
    given = dataclasses.replace(
        SOUND,
        classes=np.int64(CLASSES),
        mean=convert(SOUND.mean),
        std=convert(SOUND.std),
    )
    dataset = require_dataset(given)
    json.dumps([dataset.classes, dataset.mean, dataset.std])
    assert hash((dataset.classes, dataset.mean)) and dataset.classes == CLASSES
    np.testing.assert_allclose(dataset.mean, SOUND.mean)
    np.testing.assert_allclose(dataset.std, SOUND.std)
    assert dataset.train is given.train


def test_one_number_is_that_of_one_channel():
    assert require_statistics(0.5, np.float32(0.25), 1) == ((0.5,), (0.25,))
    with pytest.raises(ValueError, match="^mean: 0.5 given, 2 numbers"):
        require_statistics(0.5, 0.25, 2)


def test_one_part_and_images_alone():
    require_split(part(3), CLASSES)
    with pytest.raises(ValueError, match=r"^data.labels: 2 given, 0\.\.1 accepted"):
        require_split(part(3), 2)
    require_images(np.zeros((1, 2, 2, 1), np.float32))
    with pytest.raises(ValueError, match=r"^images: list \[1\] given"):
        require_images([0])
