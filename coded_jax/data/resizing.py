"""Images of another size, by Pillow."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from coded_jax.data.sources import channel_statistics, require_modules
from coded_jax.types import Dataset, Split


def resize(image: Any, size: int | None) -> np.ndarray:
    """Resizes an image, what is not square cut at both ends.

    Args:
      image: of Pillow.
      size: rows and columns; as it is if None.

    Returns:
      uint8 `[H, W, C]`.
    """
    from PIL import Image, ImageOps

    if size is not None and image.size != (size, size):
        image = ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)
    return np.asarray(image).reshape(image.height, image.width, -1)


def resized(dataset: Dataset, size: int) -> Dataset:
    """Returns a data set with all images of another size, and statistics of those.

    Args:
      dataset: of uint8 images.
      size: rows and columns.

    Raises:
      ModuleNotFoundError: Pillow is not installed.
    """
    require_modules("images", "PIL")
    from PIL import Image

    def of(split: Split) -> Split:
        grey = split.images.shape[-1] == 1
        images = split.images[..., 0] if grey else split.images
        arrays = [resize(Image.fromarray(image), size) for image in images]
        return Split(np.stack(arrays), split.labels)

    parts = {
        name: of(getattr(dataset, name)) for name in ("train", "validation", "test")
    }
    mean, std = channel_statistics(parts["train"].images)
    return dataclasses.replace(dataset, **parts, mean=mean, std=std)
