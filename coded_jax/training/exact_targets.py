"""Exact outputs of the coded stages, which codes learn to reconstruct: kept for all
epochs, checked, and averaged."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from coded_jax import splitting
from coded_jax.devices import placement
from coded_jax.devices.meshes import memory_of_device
from coded_jax.devices.placement import PieceMap
from coded_jax.inference.pipeline import Pipeline, exact_outputs
from coded_jax.training.steps import DONATES
from coded_jax.types import PyTree

CACHE_BYTES = 4 << 30
CACHE_SHARE = 4
"""Up to the first size, and to this part of a device's memory, the exact outputs of the
coded stages are kept on each device. What is free at the moment does not count: the
same run on the same machine must keep the same."""

CHUNK = 500


def with_targets(
    pipeline: Pipeline, frozen: PyTree, arrays: dict[str, jax.Array]
) -> dict[str, Any]:
    """Adds the exact outputs of the coded stages to the training arrays, for good.

    Args:
      pipeline: the coded inference.
      frozen: variables of the base model.
      arrays: `images` `[N, H, W, C]`, and others that are returned as they are.

    Returns:
      With `targets`, a tuple of `[N, M*, M'*, D]` of the pipeline's dtype, one for each
      coded stage; but without them if they have more than `CACHE_BYTES`, or a quarter
      of a device's memory: then every step computes its own. While they are computed
      they take no more than their own size and that of `CHUNK` rows.
    """
    total = len(arrays["images"])
    if not keeps_targets(pipeline, total, memory_of_device(pipeline.mesh)):
        return arrays
    targets = _zeros(pipeline, total)
    for start in range(0, total, CHUNK):
        images = arrays["images"][start : start + CHUNK]
        chunk = _targets_of(pipeline, frozen, images)
        # Waited for: chunks that are computed ahead would each take their memory.
        targets = jax.block_until_ready(_put_rows(targets, chunk, np.int32(start)))
    return {**arrays, "targets": targets}


def keeps_targets(pipeline: Pipeline, total: int, memory: int) -> bool:
    """Returns whether the exact outputs of the coded stages are kept for all epochs.

    Args:
      pipeline: the coded inference.
      total: training inputs.
      memory: bytes of a device.
    """
    size = sum(x.size * x.dtype.itemsize for x in _zeros.eval_shape(pipeline, total))
    return size <= min(CACHE_BYTES, memory // CACHE_SHARE)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _zeros(pipeline: Pipeline, total: int) -> tuple[jax.Array, ...]:
    """Returns arrays for the exact outputs of all coded stages, of `total` inputs."""
    plans = [stage.plan for stage in pipeline.stages]
    zeros = tuple(jnp.zeros((total, *p.features_shape), pipeline.dtype) for p in plans)
    return placement.replicated(pipeline.mesh, zeros)


@functools.partial(jax.jit, donate_argnums=0 if DONATES else ())
def _put_rows(
    targets: tuple[jax.Array, ...], chunk: tuple[jax.Array, ...], start: jax.Array
) -> tuple[jax.Array, ...]:
    """Writes the rows of a chunk from `start` on, in place where arrays are donated."""
    put = lambda x, rows: jax.lax.dynamic_update_slice_in_dim(x, rows, start, 0)
    return jax.tree.map(put, targets, chunk)


def require_nonnegative(pipeline: Pipeline, frozen: PyTree, images: jax.Array) -> None:
    """Checks that no coded stage puts out negative values.

    Args:
      pipeline: the coded inference.
      frozen: variables of the base model.
      images: `[N, H, W, C]`, of which the first `CHUNK` are tried.

    Raises:
      ValueError: one does.
    """
    targets = _targets_of(pipeline, frozen, images[:CHUNK])
    for stage, target in zip(pipeline.stages, targets, strict=True):
        if (lowest := float(target.min())) < 0:
            first, last = stage.blocks
            raise ValueError(
                f"nonnegative: True given, False accepted where features are negative, "
                f"as those of blocks {first}-{last} are, down to {lowest:.3g}"
            )


def constants(pipeline: Pipeline, frozen: PyTree, images: jax.Array) -> PyTree:
    """Computes the parameters of codes that know their mean shares, `Traits.constants`.

    Args:
      pipeline: with such a code in every coded stage.
      frozen: variables of the base model.
      images: `[N, H, W, C]`, those of the training split.
    """
    total, sums = len(images), [jnp.zeros(()) for _ in pipeline.stages]
    for start in range(0, total, CHUNK):
        targets = _targets_of(pipeline, frozen, images[start : start + CHUNK])
        of_chunk = [target.astype(jnp.float32).sum(axis=0) for target in targets]
        sums = of_chunk if not start else jax.tree.map(jnp.add, sums, of_chunk)
    params = []
    for stage, total_of_stage in zip(pipeline.stages, sums, strict=True):
        constants_of, mean = stage.code.traits.constants, total_of_stage[None] / total
        assert constants_of is not None
        params.append(constants_of(splitting.shares(stage.plan, mean)[:, 0]))
    return tuple(params)


@functools.partial(jax.jit, static_argnames="pipeline")
def _targets_of(
    pipeline: Pipeline, frozen: PyTree, images: jax.Array
) -> tuple[jax.Array, ...]:
    """Runs `exact_outputs`, each device on its part of the batch."""

    def compute_part(spread: PieceMap, frozen: PyTree, images: jax.Array) -> tuple:
        return exact_outputs(pipeline, frozen, images)

    targets = placement.data_parallel(pipeline.mesh, compute_part, (None, 0))
    return placement.replicated(pipeline.mesh, targets(frozen, images))
