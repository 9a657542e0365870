"""Groups: k different images coded together, with the whole network as the worker.

A group of k images is one tall image `[k*H, W, C]`, and its pieces, which do not
overlap, are the images. Shares are logits. So ParM, ApproxIFER and NeRCC run as they
were published, and everything that serves pieces of one image serves groups as well.

Data set and base model are adapted here; a pipeline says by `separate` that each of its
data results is an answer of its own, and its labels are `[B, k]`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from coded_jax.data.augmentation import AUGMENTATIONS
from coded_jax.data.sources import map_parts
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

    def init(key: jax.Array, shape: tuple[int, int, int], classes: int) -> PyTree:
        return base.init(key, (height, *shape[1:]), classes)

    def classify_images(variables: PyTree, groups: jax.Array) -> jax.Array:
        images = groups.reshape(-1, height, *groups.shape[2:])
        logits = base.head(variables, base.f_conv(variables, images))
        return logits.reshape(groups.shape[0], -1, 1, logits.shape[-1])

    head = lambda variables, logits: logits[:, :, 0]
    train_images = base.train
    if train_images is None:
        return BaseModel(init, (classify_images,), head)

    def train(variables: PyTree, groups: jax.Array) -> tuple[jax.Array, PyTree]:
        images = groups.reshape(-1, height, *groups.shape[2:])
        logits, updated = train_images(variables, images)
        return logits.reshape(groups.shape[0], -1, logits.shape[-1]), updated

    return BaseModel(init, (classify_images,), head, train)


def group_plan(image_shape: tuple[int, int, int], k: int, classes: int) -> SplitPlan:
    """Plans the split of a group into its images.

    Args:
      image_shape: `(H, W, C)` of one image.
      k: images.
      classes: of the data set.
    """
    height, width, channels = image_shape
    rows, columns = (
        AxisPlan(
            size=parts * length,
            window=length,
            starts=tuple(range(0, parts * length, length)),
            out=parts,
            share=1,
            cuts=(0,) * parts,
            stride=length,
        )
        for parts, length in ((k, height), (1, width))
    )
    return SplitPlan(rows, columns, channels, classes)


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
    return map_parts(functools.partial(inputs_of_split, pipeline), dataset)


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


def vary_batch(
    pipeline: Pipeline, key: jax.Array, batch: dict[str, Any], augmentation: str
) -> tuple[jax.Array, dict[str, Any]]:
    """Augments the images of a training batch and, if they are grouped, regroups them.

    Args:
      pipeline: whose inputs they are.
      key: of the random changes.
      batch: see `regroup`; with an augmentation it must have no targets.
      augmentation: one of `AUGMENTATIONS`.

    Returns:
      A key that has not been used, and the changed batch.
    """
    group = pipeline.images_per_input
    if augmentation != "none":
        change_key, key = jax.random.split(key)
        change = functools.partial(AUGMENTATIONS[augmentation], change_key)
        batch = {**batch, "images": map_images(change, batch["images"], group)}
    if pipeline.examples.grouped:  # other images together in every epoch
        mix_key, key = jax.random.split(key)
        batch = regroup(mix_key, batch, group)
    return key, batch
