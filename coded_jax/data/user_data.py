"""Data that users hand in, checked before anything is computed with them.

They are a data set, a part of one, arrays, or a stream of batches. What is wrong with
them would else be a wrong answer, not an error: JAX clips indices, so that missing
labels or images are read from others, and it takes any pixels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from coded_jax.checks import (
    is_integer,
    require,
    require_form,
    require_type,
    shape_text,
)
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
    for name in ("train", "validation", "test"):
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
    images, labels = split.images, np.asarray(split.labels)
    fits = getattr(images, "dtype", None) in (np.uint8, np.float32)
    fits = fits and np.ndim(images) == 4 and 0 not in np.shape(images)
    accepted = "one or more as uint8 [N, H, W, C], or normalised ones as float32,"
    require_form(f"{name}.images", images, fits, accepted)
    if positions is None:
        positions = labels.shape[1:3] if labels.ndim > 2 else ()
    if values is None:
        values = labels.ndim == 4
    shape = (len(images), *positions, *([classes] if values else []))
    numbers = labels.dtype == np.float32 if values else labels.dtype.kind in "iu"
    alike = labels.shape == shape and 0 not in shape
    what = "float32 values" if values else "integer classes"
    accepted = f"{what} {shape_text(shape)}"
    require_form(f"{name}.labels", labels, numbers and alike, accepted)
    if values:
        finite = bool(np.isfinite(labels).all())
        require(f"{name}.labels", "some infinite or no number", finite, "finite ones")
    else:
        wrong = labels[(labels < (-1 if positions else 0)) | (labels >= classes)]
        shown = wrong[:1].tolist()
        require(f"{name}.labels", shown, not shown, f"0..{classes - 1}")


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
    splits = list(batches(data))
    require("data", "no batch", len(splits) > 0, "one batch or more")
    return _join(splits)


def batches(data: Any) -> Iterator[Split]:
    """Yields images `[B, H, W, C]` with as many labels, see `types.Dataset`.

    Args:
      data: a `Split`, a tuple of images and labels, or an iterator of such tuples.

    Raises:
      ValueError: it is none of these, or a batch has another form than the first one.
    """
    if isinstance(data, Split):
        data = [(data.images, data.labels)]
    elif isinstance(data, tuple) and len(data) == 2 and hasattr(data[0], "ndim"):
        data = [data]
    accepted = "a Split, images with labels, or an iterator of such pairs"
    require("data", type(data).__name__, isinstance(data, Iterable), accepted)
    first = None
    for batch in data:
        pair = isinstance(batch, tuple | list) and len(batch) == 2
        require("data", type(batch).__name__, pair, "pairs of images and labels")
        images, labels = map(np.asarray, batch)
        fits = images.ndim == 4 and labels.shape[:1] == images.shape[:1]
        sizes = f"{shape_text(images.shape)}, {shape_text(labels.shape)}"
        require("data", sizes, fits, "images [B, H, W, C] with as many labels")
        form = images.dtype, images.shape[1:], labels.shape[1:]
        first = first or form
        require("data", form, form == first, f"{first} as in the first batch")
        yield Split(images, labels)


def _rows(split: Split, start: int, end: int) -> Split:
    return Split(split.images[start:end], split.labels[start:end])


def _join(splits: list[Split]) -> Split:
    if len(splits) == 1:  # which need not be copied
        return splits[0]
    images = np.concatenate([split.images for split in splits])
    return Split(images, np.concatenate([split.labels for split in splits]))
