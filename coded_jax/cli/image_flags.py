"""The flags of commands that need a data set's images or sizes, and train nothing."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from absl import flags

from coded_jax import data
from coded_jax.cli.command_line import image_shape_of

IMAGE_SHAPE = flags.DEFINE_string(
    "image_shape",
    None,
    "HxWxC, as 32x32x3, of a data set that is not read (with 50,000 training images); "
    "that of the data set if not given",
)
CLASSES = flags.DEFINE_integer(
    "classes", 10, "of a model for --image_shape", lower_bound=1
)
DATA_DIR = flags.DEFINE_string(
    "data_dir",
    None,
    "folder of prepared TFDS data, TFDS_DATA_DIR if not given; or, with "
    "dataset=folder, of images",
)
USUAL = 50_000
"""Training images of a data set that is not read, as of CIFAR-10."""


class Example(NamedTuple):
    """An image of a data set, uint8 `[H, W, C]`, and how many classes and training
    images there are."""

    image: np.ndarray
    classes: int
    examples: int


def example_from_flags() -> Example:
    """Returns an image of the data set, or rings in `--image_shape`.

    Raises:
      ValueError, OSError, ImportError: there is no such image or data set.
    """
    if IMAGE_SHAPE.value is None:
        values = flags.FLAGS
        dataset = data.load(values.dataset, DATA_DIR.value, values.image_size)
        examples = len(dataset.train.labels)
        return Example(dataset.test.images[0], dataset.classes, examples)
    height, width, channels = image_shape_of(IMAGE_SHAPE.value)
    rows, columns = np.ogrid[:height, :width]
    radius = np.hypot(rows - height / 2, columns - width / 2) / max(height, width)
    rings = (127 + 100 * np.cos(30 * radius)).astype(np.uint8)
    image = np.repeat(rings[..., None], channels, axis=2)
    return Example(image, CLASSES.value, USUAL)


def ignore(*names: str) -> None:
    """Defines flags of `run` that flagfiles may have and this command does not use."""
    for name in names:
        flags.DEFINE_string(name, None, "not used; flagfiles of `run` may have it")
