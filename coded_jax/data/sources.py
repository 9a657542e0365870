"""The record of where a data set comes from, and the parts that its arrays become."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np

from coded_jax.types import Split


class Parts(NamedTuple):
    """The disjoint parts of a data set, as of `Dataset`, without their statistics."""

    classes: int
    train: Split
    validation: Split
    test: Split


class Source(NamedTuple):
    """One way to read data sets.

    Attributes:
      find: `(name, data_dir) -> place`, whatever `read` needs to know; raises, within
        seconds, what would keep it from reading.
      read: `(place, image_size) -> Parts`; images that it leaves in another size are
        resized afterwards.
      own_images: whether `data_dir` has images of the user's own, of which a run keeps
        a digest, since no name says which ones they are.
      class_names: in the order of the labels; empty where these are numbers.
    """

    find: Callable[[str, str | None], Any]
    read: Callable[[Any, int | None], Parts]
    own_images: bool = False
    class_names: tuple[str, ...] = ()


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


def hold_out(split: Split) -> tuple[Split, Split]:
    """Shuffles training images; returns them without those that are held out for
    validation, a tenth, 5,000 at most, and these."""
    total = len(split.labels)
    train, validation = shuffled_parts(split, total - min(5000, total // 10))
    return train, validation
