"""Data sets that a caller hands in, checked before anything is computed with them.

What is wrong with one would else be a wrong answer, not an error: JAX clips indices, so
that missing labels or images are read from others, and it takes any pixels.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from coded_jax.checks import (
    is_integer,
    require,
    require_form,
    require_type,
    shape_text,
)
from coded_jax.data.sources import PARTS
from coded_jax.types import Dataset, Split


def require_dataset(dataset: Dataset) -> Dataset:
    """Checks the three parts of a data set, and its statistics.

    Returns:
      The data set, with classes, mean and deviation in numbers of Python.

    Raises:
      ValueError: one line that names the part or field, its value and what is accepted.
    """
    require_type("dataset", dataset, Dataset, "a coded_jax.types.Dataset")
    classes = dataset.classes
    whole = is_integer(classes) and classes >= 1
    require("classes", classes, whole, "a whole number of 1 or more")
    require_split(dataset.train, classes, "train")
    shape, pixels = dataset.image_shape, dataset.train.images.dtype
    for name in PARTS:
        split = getattr(dataset, name)
        require_split(split, classes, name, dataset.positions, dataset.values)
        alike = split.images.shape[1:] == shape and split.images.dtype == pixels
        accepted = f"{pixels} {shape_text(('N', *shape))} as in train"
        require_form(f"{name}.images", split.images, alike, accepted)
        some = dataset.values or bool((np.asarray(split.labels) >= 0).any())
        require(f"{name}.labels", "-1 alone", some, "one or more that count")
    mean, std = dataset.mean, dataset.std
    if pixels == np.uint8:
        mean, std = require_statistics(mean, std, shape[-1])
    else:
        accepted = "None for both, since float32 images are taken as they are,"
        require("mean, std", (mean, std), mean is None and std is None, accepted)
    return dataclasses.replace(dataset, classes=int(classes), mean=mean, std=std)


def require_split(
    split: Split,
    classes: int,
    name: str = "data",
    positions: tuple[int, ...] | None = None,
    values: bool | None = None,
) -> None:
    """Checks the images and labels of one part of a data set.

    Args:
      split: images uint8, or float32 as the network takes them, `[N, H, W, C]`, and
        labels, see `types.Dataset`.
      classes: integer labels are in `0..classes-1`, of positions also -1, for those
        that do not count; values have so many channels.
      name: of the part, for errors.
      positions: `(H', W')` of the labels, or `()`; either if None.
      values: whether labels are values; either if None.

    Raises:
      ValueError: there are no images, as many labels as images are not there, or one of
        them has another form.
    """
    require_type(name, split, Split, "a coded_jax.types.Split")
    images, labels = split.images, split.labels
    pixels = getattr(images, "dtype", None) in (np.uint8, np.float32)
    some = np.ndim(images) == 4 and min(np.shape(images)) >= 1
    accepted = "one or more as uint8 [N, H, W, C], or normalised ones as float32,"
    require_form(f"{name}.images", images, pixels and some, accepted)
    numbers = np.asarray(labels)
    if positions is None:
        positions = numbers.shape[1:3] if numbers.ndim in (3, 4) else ()
    if values is None:
        values = numbers.ndim == 4 and numbers.dtype.kind == "f"
    shape = (len(images), *positions, *([classes] if values else []))
    fits = numbers.dtype == np.float32 if values else numbers.dtype.kind in "iu"
    fits = fits and numbers.shape == shape and 0 not in shape
    what = "float32 values" if values else "integer classes"
    require_form(f"{name}.labels", labels, fits, f"{what} {shape_text(shape)}")
    if values:
        finite = bool(np.isfinite(numbers).all())
        require(f"{name}.labels", "some infinite or no number", finite, "finite ones")
        return
    wrong = numbers[(numbers < (-1 if positions else 0)) | (numbers >= classes)]
    least = int(wrong[0]) if wrong.size else 0
    require(f"{name}.labels", least, not wrong.size, f"0..{classes - 1}")


def require_statistics(
    mean: Any, std: Any, channels: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Checks the mean and deviation of uint8 images, in units of 255.

    Args:
      mean, std: `[channels]`, an array or a collection of numbers; or one number of
        the only channel.
      channels: of the images.

    Returns:
      Both in numbers of Python.

    Raises:
      ValueError: they are not `[channels]`, or not those of `images / 255`.
    """
    accepted = f"{channels} numbers of 0 to 1, of images / 255, of std more than 0,"
    means, deviations = np.ravel(mean), np.ravel(std)
    for name, value, numbers in (("mean", mean, means), ("std", std, deviations)):
        fits = numbers.shape == (channels,) and numbers.dtype.kind in "fiu"
        fits = fits and bool(((numbers >= 0) & (numbers <= 1)).all())
        fits = fits and (name == "mean" or bool(numbers.all()))
        require(name, value, fits, accepted)
    return tuple(map(float, means)), tuple(map(float, deviations))
