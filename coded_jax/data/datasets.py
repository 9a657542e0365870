"""Data sets by name, read into memory.

A new one is a line here, and a file beside this one where it comes from elsewhere.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from coded_jax.checks import require
from coded_jax.data import digits, folder, prepared
from coded_jax.data.sources import Source, require_modules
from coded_jax.types import Dataset, Split

GARMENTS = (
    *("T-shirt", "trousers", "pullover", "dress", "coat"),
    *("sandal", "shirt", "sneaker", "bag", "ankle boot"),
)
THINGS = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)

DATASETS: dict[str, Source] = {
    "mnist_5k": digits.DIGITS,
    "mnist_canvas": digits.CANVASES,
    "noisy_canvas": digits.NOISY,
    "mnist": prepared.SOURCE,
    "fashion_mnist": prepared.SOURCE._replace(class_names=GARMENTS),
    "cifar10": prepared.SOURCE._replace(class_names=THINGS),
    "cifar100": prepared.SOURCE,
    "folder": folder.SOURCE,
}


def check(name: str, data_dir: str | None = None) -> Any:
    """Raises, within seconds, what would keep `load` from reading the data set.

    Args:
      name: one of `DATASETS`.
      data_dir: folder of prepared TFDS data; by default `TFDS_DATA_DIR`, or else
        `~/tensorflow_datasets`; for `folder`, the folder of images, see `data.folder`.
        Data sets that come with a package do not use it.

    Returns:
      The place where the data are, see `Source.find`.

    Raises:
      ValueError: `name` is unknown, `data_dir` is no folder, or the data there are not
        in the array_record format.
      ModuleNotFoundError: the extra that reads this data set is not installed.
      FileNotFoundError: the data set is not prepared and cannot be prepared here.
    """
    require("dataset", name, name in DATASETS, f"one of {list(DATASETS)}")
    return DATASETS[name].find(name, data_dir)


def load(
    name: str, data_dir: str | None = None, image_size: int | None = None
) -> Dataset:
    """Reads a data set into memory; prepares it first where that is possible.

    The parts are the same for every seed of an experiment.

    Args:
      name: as in `check`.
      data_dir: as in `check`.
      image_size: rows and columns that images are resized to, or of canvases; as they
        are if None.

    Raises:
      ValueError: as in `check`, the data are damaged, or the preparation failed.
      ModuleNotFoundError, FileNotFoundError: as in `check`.
    """
    place = check(name, data_dir)
    classes, *parts = DATASETS[name].read(place, image_size)
    size = image_size, image_size
    if image_size is not None and parts[0].images.shape[1:3] != size:
        parts = [_resized(part, image_size) for part in parts]
    images = parts[0].images
    # From integer sums: exact, and without a copy of the images.
    count = images[..., 0].size
    mean = np.einsum("nhwc->c", images, dtype=np.int64) / count
    square = np.einsum("nhwc,nhwc->c", images, images, dtype=np.int64) / count
    std = np.sqrt(square - mean**2)
    mean, std = (tuple((numbers / 255).tolist()) for numbers in (mean, std))
    return Dataset(name, classes, *parts, mean=mean, std=std)


def _resized(split: Split, size: int) -> Split:
    require_modules("images", "PIL")
    from PIL import Image

    images = split.images
    if images.shape[-1] == 1:  # grey, of which Pillow takes no axis of channels
        images = images[..., 0]
    arrays = [folder.resize(Image.fromarray(image), size) for image in images]
    return Split(np.stack(arrays), split.labels)
