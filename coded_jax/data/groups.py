"""Groups: k different images coded together, with the whole network as the worker.

A group of k images is one tall image `[k*H, W, C]`, and its pieces, which do not
overlap, are the images. Shares are logits. So ParM, ApproxIFER and NeRCC run as they
were published, and everything that serves pieces of one image serves groups as well.

Data set and base model are adapted here; a pipeline says by `Examples.grouped` that
each of its data results is an answer of its own, and its labels are `[B, k]`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from coded_jax.inference.pipeline import Pipeline, infer
from coded_jax.splitting import AxisPlan, SplitPlan
from coded_jax.types import BaseModel, Dataset, PyTree, Split


def group_base(base: BaseModel, height: int) -> BaseModel:
    """Adapts a base model to groups: its only block gives logits, which the head keeps.

    Args:
      base: of images `[B, H, W, C]`.
      height: H, of one image.

    Returns:
      A model with the block `[B, g*H, W, C] -> [B, g, 1, classes]` for any g, and the
      head `[B, g, 1, classes] -> [B, g, classes]`; its `train`, if the base model has
      one, gives logits `[B, g, classes]`.
    """

    ungroup = lambda groups: groups.reshape(-1, height, *groups.shape[2:])

    def init(key: jax.Array, shape: tuple[int, int, int], classes: int) -> PyTree:
        return base.init(key, (height, *shape[1:]), classes)

    def classify(variables: PyTree, groups: jax.Array) -> jax.Array:
        logits = base.head(variables, base.f_conv(variables, ungroup(groups)))
        return logits.reshape(groups.shape[0], -1, 1, logits.shape[-1])

    def train(variables: PyTree, groups: jax.Array) -> tuple[jax.Array, PyTree]:
        assert base.train is not None
        logits, updated = base.train(variables, ungroup(groups))
        return logits.reshape(groups.shape[0], -1, logits.shape[-1]), updated

    head = lambda variables, logits: logits[:, :, 0]
    return BaseModel(init, (classify,), head, None if base.train is None else train)


def group_plan(image_shape: tuple[int, int, int], k: int, classes: int) -> SplitPlan:
    """Plans the split of a group into its images.

    Args:
      image_shape: `(H, W, C)` of one image.
      k: images.
      classes: of the data set.
    """
    height, width, channels = image_shape

    def tiles(parts: int, length: int) -> AxisPlan:
        return AxisPlan(
            size=parts * length,
            window=length,
            starts=tuple(range(0, parts * length, length)),
            out=parts,
            share=1,
            cuts=(0,) * parts,
            stride=length,
        )

    return SplitPlan(tiles(k, height), tiles(1, width), channels, classes)


def group_split(split: Split, k: int) -> Split:
    """Groups the images of a split in their order, k by k.

    Where k does not divide their number the last group is filled up from the first
    images, with label -1.

    Returns:
      Images `[ceil(N/k), k*H, W, C]` of the same dtype, labels int32 `[ceil(N/k), k]`.
    """
    total = len(split.labels)
    rows = np.arange(total + -total % k)
    images = split.images[rows % total]
    labels = np.where(rows < total, split.labels[rows % total], -1)
    tall = (-1, k * images.shape[1], *images.shape[2:])
    return Split(images.reshape(tall), labels.reshape(-1, k).astype(np.int32))


def inputs_of_split(pipeline: Pipeline, split: Split) -> Split:
    """Returns the inputs of a pipeline with their labels: images, or groups of them."""
    return group_split(split, pipeline.k) if pipeline.examples.grouped else split


def inputs_of_dataset(pipeline: Pipeline, dataset: Dataset) -> Dataset:
    """Applies `inputs_of_split` to all parts of a data set."""
    parts = {
        name: inputs_of_split(pipeline, getattr(dataset, name))
        for name in ("train", "validation", "test")
    }
    return dataclasses.replace(dataset, **parts)


def inputs_of_images(pipeline: Pipeline, images: jax.Array) -> jax.Array:
    """Joins images `[B*g, H, W, C]` to the inputs `[B, g*H, W, C]` of a pipeline."""
    group, (_, height, *rest) = pipeline.images_per_input, images.shape
    return images.reshape(-1, group * height, *rest)


def answers_of_images(pipeline: Pipeline, answers: Any) -> Any:
    """Turns the answers `[B, g, classes]` of groups into `[B*g, classes]` of images;
    those that are of images already stay as they are."""
    return (
        answers.reshape(-1, answers.shape[-1]) if pipeline.examples.grouped else answers
    )


def infer_images(
    pipeline: Pipeline,
    frozen: PyTree,
    params: PyTree,
    images: jax.Array,
    available: jax.Array,
) -> jax.Array:
    """Classifies images with `pipeline.infer`, grouped if the pipeline codes groups.

    Args:
      pipeline, frozen, params, available: as of `pipeline.infer`, B inputs.
      images: `[B*g, H, W, C]`.

    Returns:
      Logits, float32 `[B*g, ..., classes]`.
    """
    inputs = inputs_of_images(pipeline, images)
    answers = infer(pipeline, frozen, params, inputs, available)
    return answers_of_images(pipeline, answers)


def map_images(
    f: Callable[[jax.Array], jax.Array], inputs: jax.Array, group: int
) -> jax.Array:
    """Applies `f`, of images `[B*g, H, W, C]`, to inputs `[B, g*H, W, C]`."""
    total, height, *rest = inputs.shape
    images = inputs.reshape(total * group, height // group, *rest)
    return f(images).reshape(inputs.shape)


def regroup(key: jax.Array, batch: dict[str, Any], group: int) -> dict[str, Any]:
    """Puts the images of a batch into other groups.

    Args:
      key: of the permutation.
      batch: `images` `[B, g*H, W, C]`, `labels` `[B, g]` and, if there are any,
        `targets`, a tuple of `[B, g, 1, classes]`.
      group: g, images of a group.
    """
    order = jax.random.permutation(key, len(batch["images"]) * group)
    shuffle = functools.partial(map_images, lambda images: images[order], group=group)
    return jax.tree.map(shuffle, batch)
