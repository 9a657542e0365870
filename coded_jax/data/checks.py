"""Data sets that a caller hands in, checked before anything is computed with them.

What is wrong with one would else be a wrong answer, not an error: JAX clips indices, so
that missing labels or images are read from others, and it takes any pixels.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from coded_jax.checks import array_form, is_integer, require, require_type, shape_text
from coded_jax.types import Dataset, Split

PARTS = ("train", "validation", "test")


def require_dataset(dataset: Dataset) -> Dataset:
    """Checks the three parts of a data set, and its statistics.

    Returns:
      The data set, with classes, mean and deviation in numbers of Python.

    Raises:
      ValueError: one line that names the part or field, its value and what is accepted.
    """
    require_type("dataset", dataset, Dataset, "a coded_jax.types.Dataset")
    classes = dataset.classes
    least = 1 if np.ndim(getattr(dataset.train, "labels", None)) == 4 else 2
    whole = is_integer(classes) and classes >= least
    require("classes", classes, whole, f"a whole number of {least} or more")
    require_split(dataset.train, classes, "train")
    kind = (dataset.positions, dataset.values)
    for name in PARTS[1:]:
        require_split(getattr(dataset, name), classes, name, *kind)
    shape, pixels = dataset.image_shape, dataset.train.images.dtype
    for name in PARTS:
        split = getattr(dataset, name)
        images, labels = split.images, np.asarray(split.labels)
        some = dataset.values or bool((labels >= 0).any())
        require(f"{name}.labels", "-1 alone", some, "one or more that count")
        fits = images.shape[1:] == shape and images.dtype == pixels
        accepted = f"{pixels} {shape_text(('N', *shape))} as in train"
        require(f"{name}.images", array_form(images), fits, accepted)
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
    require_images(split.images, f"{name}.images")
    labels, total = split.labels, len(split.images)
    dtype, given = getattr(labels, "dtype", None), np.shape(labels)
    known = values is not None
    values = values if known else np.issubdtype(dtype, np.floating)
    if positions is None:
        positions = given[1:3] if len(given) in (3, 4) else ()
    shape = (total, *positions, *([classes] if values else []))
    kind = dtype == np.float32 if values else np.issubdtype(dtype, np.integer)
    sized = len(positions) == 2 or not (positions or values)
    fits = kind and sized and given == shape and 0 not in shape
    text = _labels_text(total, positions, classes if values else None)
    text = text if known or not values else f"integers, the classes, or {text}"
    require(f"{name}.labels", array_form(labels), fits, text)
    numbers = np.asarray(labels)
    if values:
        finite = bool(np.isfinite(numbers).all())
        require(f"{name}.labels", "some infinite or no number", finite, "finite ones")
        return
    lowest = -1 if positions else 0
    wrong = numbers[(numbers < lowest) | (numbers >= classes)]
    least = int(wrong[0]) if wrong.size else 0
    require(f"{name}.labels", least, not wrong.size, f"{lowest}..{classes - 1}")


def _labels_text(total: int, positions: tuple[int, ...], channels: int | None) -> str:
    """Returns the description of accepted labels; `channels` are those of values."""
    rows, columns = positions if len(positions) == 2 else ("rows", "columns")
    if channels is not None:
        form = f"[{total}, {rows}, {columns}, {channels}]"
        return f"float32 {form}, the values of each position,"
    if positions:
        form = f"[{total}, {rows}, {columns}]"
        return f"an integer array {form}, the class of each position,"
    return f"an integer array [{total}], the class of every image,"


def require_images(images: Any, name: str = "images") -> None:
    """Checks that images are a batch of one or more.

    Raises:
      ValueError: they are not uint8 or float32 `[N, H, W, C]`.
    """
    dtype = getattr(images, "dtype", None)
    pixels = dtype in (np.uint8, np.float32)
    fits = pixels and np.ndim(images) == 4 and min(np.shape(images)) >= 1
    accepted = "one or more as uint8 [N, H, W, C], or normalised ones as float32,"
    require(name, array_form(images), fits, accepted)


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

    def numbers(name: str, value: Any, least: str, fits: np.ufunc) -> tuple[float, ...]:
        values = np.ravel(value)
        sound = values.shape == (channels,) and np.issubdtype(values.dtype, np.number)
        sound = sound and bool((fits(values, 0) & (values <= 1)).all())
        accepted = f"{channels} numbers of {least} to 1, of images / 255,"
        require(name, value, sound, accepted)
        return tuple(map(float, values))

    return (
        numbers("mean", mean, "0", np.greater_equal),
        numbers("std", std, "more than 0", np.greater),
    )
