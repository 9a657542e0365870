"""The record of where a data set comes from, and the parts that its arrays become."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np

from coded_jax.types import Dataset, Split


class Source(NamedTuple):
    """One way to read data sets; see `datasets.check` and `datasets.load`.

    Attributes:
      check: `(name, data_dir)`; raises, within seconds, what would keep `load` from
        reading the data set.
      load: `(name, data_dir) -> Dataset`, or with an `image_size` where `sized`.
      sized: whether `load` takes an `image_size`; images of others are resized.
      own_images: whether `data_dir` has images of the user's own, of which a run keeps
        a digest, since no name says which ones they are.
      class_names: in the order of the labels; empty where these are numbers.
    """

    check: Callable[[str, str | None], None]
    load: Callable[..., Dataset]
    sized: bool = False
    own_images: bool = False
    class_names: tuple[str, ...] = ()


PARTS = ("train", "validation", "test")


def make_dataset(
    name: str, classes: int, train: Split, validation: Split, test: Split
) -> Dataset:
    """Returns a data set with the statistics of its training images, uint8."""
    mean, std = channel_statistics(train.images)
    return Dataset(name, classes, train, validation, test, mean=mean, std=std)


def map_parts(f: Callable[[Split], Split], dataset: Dataset) -> Dataset:
    """Applies a function to the three parts of a data set; its statistics stay."""
    parts = {name: f(getattr(dataset, name)) for name in PARTS}
    return dataclasses.replace(dataset, **parts)


def validation_images(total: int) -> int:
    """Returns the number of training images that are held out for validation: a tenth,
    at most 5,000."""
    return min(5000, total // 10)


def missing_modules(*modules: str) -> str:
    """Returns those that are not installed, as "a and b"; empty if all are there."""
    return " and ".join(module for module in modules if find_spec(module) is None)


def require_modules(extra: str, *modules: str) -> None:
    """Checks that the modules of an extra of this package are installed.

    Raises:
      ModuleNotFoundError: some are not.
    """
    if missing := missing_modules(*modules):
        raise ModuleNotFoundError(f"needs {missing}: pip install 'coded_jax[{extra}]'")


def shuffled_parts(split: Split, *sizes: int) -> list[Split]:
    """Shuffles images and cuts off parts of the given sizes; the rest is the last."""
    # A seed of its own: experiments with different seeds must see the same parts.
    order = np.random.default_rng(0).permutation(len(split.labels))
    return [
        Split(split.images[part], split.labels[part])
        for part in np.split(order, np.cumsum(sizes))
    ]


def channel_statistics(
    images: np.ndarray,
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns mean and standard deviation per channel, of `images / 255`.

    Args:
      images: uint8 `[N, H, W, C]`.
    """
    # From integer sums: exact, and without a copy of the images.
    count = images[..., 0].size
    mean = np.einsum("nhwc->c", images, dtype=np.int64) / count
    square = np.einsum("nhwc,nhwc->c", images, images, dtype=np.int64) / count
    std = np.sqrt(square - mean**2)
    return tuple((mean / 255).tolist()), tuple((std / 255).tolist())
