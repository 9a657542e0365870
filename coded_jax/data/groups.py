"""k different images coded together, with the whole network as the worker.

A group of k images is one tall image `[k*H, W, C]`, and its pieces, which do not
overlap, are the images. Shares are logits. So ParM, ApproxIFER and NeRCC run as they
were published, and everything that serves pieces of one image serves groups as well.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from coded_jax.splitting import AxisPlan, SplitPlan
from coded_jax.types import BaseModel, Dataset, PyTree, Split


def group_base(base: BaseModel, height: int) -> BaseModel:
    """The base model on groups: `f_conv` gives logits, the head leaves them alone.

    Args:
      base: of images `[B, H, W, C]`.
      height: H, of one image.

    Returns:
      `f_conv: [B, g*H, W, C] -> [B, g, 1, classes]` for any g, and
      `head: [B, g, 1, classes] -> [B, g, classes]`.
    """

    def init(key: jax.Array, shape: tuple[int, int, int], classes: int) -> PyTree:
        return base.init(key, (height, *shape[1:]), classes)

    def f_conv(variables: PyTree, groups: jax.Array) -> jax.Array:
        images = groups.reshape(-1, height, *groups.shape[2:])
        logits = base.head(variables, base.f_conv(variables, images))
        return logits.reshape(groups.shape[0], -1, 1, logits.shape[-1])

    return BaseModel(init, (f_conv,), lambda variables, logits: logits[:, :, 0])


def each_image(
    f: Callable[[jax.Array], jax.Array], groups: jax.Array, k: int
) -> jax.Array:
    """`f`, of images `[B*k, H, W, C]`, on those of groups `[B, k*H, W, C]`."""
    total, height, *rest = groups.shape
    images = groups.reshape(total * k, height // k, *rest)
    return f(images).reshape(groups.shape)


def regroup(key: jax.Array, batch: dict[str, Any], k: int) -> dict[str, Any]:
    """A batch of groups with the same images in other groups.

    Args:
      key: of the permutation.
      batch: `images` uint8 `[B, k*H, W, C]`, `labels` `[B, k]` and, if there are any,
        `targets`, a tuple of `[B, k, 1, classes]`.
      k: images of a group.
    """
    order = jax.random.permutation(key, len(batch["images"]) * k)
    mixed = functools.partial(each_image, lambda images: images[order], k=k)
    return jax.tree.map(mixed, batch)


def group_plan(image_shape: tuple[int, int, int], k: int, classes: int) -> SplitPlan:
    """The split of a group into its images.

    Args:
      image_shape: `(H, W, C)` of one image.
      k: images.
      classes: of the data set.
    """
    height, width, channels = image_shape
    starts = tuple(range(0, k * height, height))
    rows = AxisPlan(k * height, height, starts, k, 1, (0,) * k)
    columns = AxisPlan(width, width, (0,), 1, 1, (0,))
    return SplitPlan(rows, columns, channels, classes)


def group_split(split: Split, k: int) -> Split:
    """Images in their order, k by k.

    Where k does not divide their number the last group is filled up from the first
    images, with label -1.

    Returns:
      Images uint8 `[ceil(N/k), k*H, W, C]`, labels int32 `[ceil(N/k), k]`.
    """
    total = len(split.labels)
    rows = np.arange(total + -total % k)
    images = split.images[rows % total]
    labels = np.where(rows < total, split.labels[rows % total], -1)
    tall = (-1, k * images.shape[1], *images.shape[2:])
    return Split(images.reshape(tall), labels.reshape(-1, k).astype(np.int32))


def group_dataset(dataset: Dataset, k: int) -> Dataset:
    """`group_split` of all its parts."""
    parts = ("train", "validation", "test")
    return dataclasses.replace(
        dataset, **{name: group_split(getattr(dataset, name), k) for name in parts}
    )
