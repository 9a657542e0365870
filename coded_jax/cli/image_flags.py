"""The flags of commands that need a data set's images or sizes, and train nothing."""

from __future__ import annotations

import numpy as np
from absl import flags

from coded_jax import data
from coded_jax.cli.command_line import sizes
from coded_jax.cli.experiment_flags import DATA_DIR, config_from_flags

IMAGE_SHAPE = flags.DEFINE_string(
    "image_shape",
    None,
    "HxWxC, as 32x32x3, of a data set that is not read (with 10 classes and 50,000 "
    "training images); that of the data set if not given",
)
CLASSES, IMAGES = 10, 50_000
"""Classes and training images of a data set that is not read, those of CIFAR-10."""


def example_from_flags() -> tuple[np.ndarray, int, int]:
    """Returns an image of the data set, uint8 `[H, W, C]`, or rings in `--image_shape`;
    and how many classes and training images there are.

    Raises:
      ValueError, OSError, ImportError: there is no such image or data set.
    """
    if IMAGE_SHAPE.value is None:
        config = config_from_flags()
        dataset = data.load(config.dataset, DATA_DIR.value, config.image_size)
        return dataset.test.images[0], dataset.classes, len(dataset.train.labels)
    height, width, channels = sizes("image_shape", IMAGE_SHAPE.value, 3, "HxWxC")
    rows, columns = np.ogrid[:height, :width]
    radius = np.hypot(rows - height / 2, columns - width / 2) / max(height, width)
    rings = (127 + 100 * np.cos(30 * radius)).astype(np.uint8)
    return np.repeat(rings[..., None], channels, axis=2), CLASSES, IMAGES
