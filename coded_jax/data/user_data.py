"""Data that users hand in, checked before anything is computed with them.

They are a data set, a part of one, arrays, or a stream of batches. What is wrong with
them would else be a wrong answer, not an error: JAX clips indices, so that missing
labels or images are read from others, and it takes any pixels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from coded_jax.checks import is_integer, require, require_form, shape_text
from coded_jax.types import Dataset, Split


def require_dataset(dataset: Dataset) -> Dataset:
    """Checks the three parts of a data set, and its statistics.

    Returns:
      The data set, with classes, mean and deviation in numbers of Python.

    Raises:
      ValueError: one line that names the part or field, its value and what is accepted.
    """
    classes = dataset.classes
    whole = is_integer(classes) and classes >= 1
    require("classes", classes, whole, "a whole number of 1 or more")
    shape, pixels = dataset.image_shape, dataset.train.images.dtype
    for name in ("train", "validation", "test"):
        split = getattr(dataset, name)
        require_split(split, classes, name, dataset.positions, dataset.values)
        alike = split.images.shape[1:] == shape and split.images.dtype == pixels
        accepted = f"{pixels} {shape_text(('N', *shape))} as in train"
        require_form(f"{name}.images", split.images, alike, accepted)
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
    name: str,
    positions: tuple[int, ...],
    values: bool,
) -> None:
    """Checks the images and labels of one part of a data set.

    Args:
      split: images uint8, or float32 as the network takes them, `[N, H, W, C]`, and
        labels, see `types.Dataset`.
      classes: integer labels are in `0..classes-1`, of positions also -1, for those
        that do not count; values have so many channels.
      name: of the part, for errors.
      positions: `(H', W')` of the labels, or `()`.
      values: whether labels are values.

    Raises:
      ValueError: there are no images, as many labels as images are not there, or one of
        them has another form.
    """
    images, labels = split.images, np.asarray(split.labels)
    fits = getattr(images, "dtype", None) in (np.uint8, np.float32)
    fits = fits and np.ndim(images) == 4 and 0 not in np.shape(images)
    accepted = "one or more as uint8 [N, H, W, C], or normalised ones as float32,"
    require_form(f"{name}.images", images, fits, accepted)
    shape = (len(images), *positions, *([classes] if values else []))
    numbers = labels.dtype == np.float32 if values else labels.dtype.kind in "iu"
    alike = labels.shape == shape and 0 not in shape
    accepted = "finite values of float32" if values else f"classes in 0..{classes - 1}"
    form = f"{accepted} {shape_text(shape)}"
    require_form(f"{name}.labels", labels, numbers and alike, form)
    least = -1 if positions else 0
    right = np.isfinite(labels) if values else (labels >= least) & (labels < classes)
    wrong = labels[~right][:1].tolist()
    require(f"{name}.labels", wrong, not wrong, accepted)


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

    def checked(name: str, value: Any, least: float) -> tuple[float, ...]:
        numbers = np.ravel(value)
        fits = numbers.shape == (channels,) and numbers.dtype.kind in "fiu"
        fits = fits and bool(((numbers >= least) & (numbers <= 1)).all())
        require(name, value, fits, accepted)
        return tuple(numbers.astype(float).tolist())

    return checked("mean", mean, 0), checked("std", std, 1e-30)


def cut(data: Any, size: int) -> Iterator[Split]:
    """Cuts data into parts of `size` images, of which the last one may have fewer;
    arguments and errors as of `batches`."""
    held: list[Split] = []
    for batch in batches(data):
        held.append(batch)
        total = sum(len(split.labels) for split in held)
        if total >= size:
            joined, whole = _join(held), total - total % size
            for start in range(0, whole, size):
                yield _rows(joined, start, start + size)
            held = [_rows(joined, whole, total)] if whole < total else []
    if held:
        yield _join(held)


def collect(data: Any) -> Split:
    """Reads all images and labels into memory; errors as of `batches`."""
    return _join(list(batches(data)))


def batches(data: Any) -> Iterator[Split]:
    """Yields images `[B, H, W, C]` with as many labels, see `types.Dataset`.

    Args:
      data: a `Split`, a tuple of images and labels, or an iterator of such tuples.

    Raises:
      ValueError: a batch has another form.
    """
    if isinstance(data, Split):
        data = [(data.images, data.labels)]
    elif isinstance(data, tuple) and len(data) == 2 and hasattr(data[0], "ndim"):
        data = [data]
    for batch in data:
        images, labels = map(np.asarray, batch)
        fits = images.ndim == 4 and labels.shape[:1] == images.shape[:1]
        sizes = f"{shape_text(images.shape)}, {shape_text(labels.shape)}"
        require("data", sizes, fits, "images [B, H, W, C] with as many labels")
        yield Split(images, labels)


def _rows(split: Split, start: int, end: int) -> Split:
    return Split(split.images[start:end], split.labels[start:end])


def _join(splits: list[Split]) -> Split:
    if len(splits) == 1:  # which need not be copied
        return splits[0]
    # Pixels and normalised images must not become one array.
    images, dtype = [split.images for split in splits], splits[0].images.dtype
    images = np.concatenate(images, dtype=dtype, casting="equiv")
    return Split(images, np.concatenate([split.labels for split in splits]))
