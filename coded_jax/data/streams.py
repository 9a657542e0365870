"""Data that users hand in: a part of a data set, arrays, or a stream of batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from coded_jax.checks import require
from coded_jax.types import Split


def parts(data: Any, size: int) -> Iterator[Split]:
    """Cuts data into parts of `size` images, of which the last one may have fewer."""
    held: list[tuple[np.ndarray, np.ndarray]] = []
    for images, labels in batches(data):
        held.append((images, labels))
        total = sum(len(labels) for _, labels in held)
        if total < size:
            continue
        images, labels = _join(held)
        whole = total - total % size
        for start in range(0, whole, size):
            rows = slice(start, start + size)
            yield Split(images[rows], labels[rows])
        held = [(images[whole:], labels[whole:])] if whole < total else []
    if held:
        yield Split(*_join(held))


def collect(data: Any) -> Split:
    """Reads all images and labels into memory; errors as of `batches`."""
    pairs = list(batches(data))
    require("data", len(pairs), len(pairs) > 0, "one batch or more")
    return Split(*_join(pairs))


def batches(data: Any) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields images `[B, H, W, C]` with labels, see `types.Dataset`.

    Args:
      data: a `Split`, a tuple of images and labels, or an iterator of such tuples.

    Raises:
      ValueError: it is none of these, or a batch has another form.
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
        accepted = (
            "images [B, H, W, C] with their labels [B] or [B, H', W'], or values "
            "[B, H', W', C']"
        )
        sizes = list(images.shape), list(labels.shape)
        require("data", sizes, fits and labels.ndim in (1, 3, 4), accepted)
        form = str(images.dtype), images.shape[1:], labels.shape[1:]
        first = first or form
        accepted = f"{first} as in the first batch"
        require("data", form, form == first, accepted)
        yield images, labels


def _join(pairs: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    if len(pairs) == 1:
        return pairs[0]
    images, labels = zip(*pairs, strict=True)
    return np.concatenate(images), np.concatenate(labels)
