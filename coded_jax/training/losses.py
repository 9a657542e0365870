"""What is minimised: cross-entropy of the base model, feature errors of the code."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from coded_jax import splitting
from coded_jax.devices import placement
from coded_jax.devices.placement import Spread
from coded_jax.inference.pipeline import (
    Pipeline,
    base_features,
    mask_axis,
    per_stage,
    pixels,
)
from coded_jax.inference.stages import (
    coded_features,
    compute,
    parity_features,
    reconstruct,
)
from coded_jax.types import PyTree

CACHE_BYTES = 4 << 30
"""Up to this size the exact outputs of the coded stages are kept on each device."""

CHUNK = 500


def with_targets(
    pipeline: Pipeline, frozen: PyTree, arrays: dict[str, jax.Array]
) -> dict[str, Any]:
    """Adds what the frozen base model makes of the images, for good.

    Args:
      pipeline: the coded inference.
      frozen: variables of the base model.
      arrays: `images` uint8 `[N, H, W, C]`, and others that are returned as they are.

    Returns:
      With `targets`, a tuple of the `[N, M*, M'*, D]` that are the exact outputs of the
      coded stages, of the pipeline's dtype; but without them if they have more than
      `CACHE_BYTES`: then every step computes its own.
    """
    total = len(arrays["images"])
    values = sum(
        plan.rows.out * plan.columns.out * plan.feature_channels
        for plan, _ in pipeline.codings
    )
    if jnp.dtype(pipeline.dtype).itemsize * total * values > CACHE_BYTES:
        return arrays
    chunks = [
        _targets_of(pipeline, frozen, arrays["images"][start : start + CHUNK])
        for start in range(0, total, CHUNK)
    ]
    return {**arrays, "targets": jax.tree.map(lambda *c: jnp.concatenate(c), *chunks)}


def require_nonnegative(pipeline: Pipeline, frozen: PyTree, images: jax.Array) -> None:
    """Raises ValueError if a coded stage puts out negative values.

    Args:
      pipeline: the coded inference.
      frozen: variables of the base model.
      images: uint8 `[N, H, W, C]`, of which the first `CHUNK` are tried.
    """
    for stage, target in zip(
        (stage for stage in pipeline.stages if stage.coding),
        _targets_of(pipeline, frozen, images[:CHUNK]),
        strict=True,
    ):
        if (lowest := float(target.min())) < 0:
            first, last = stage.blocks
            raise ValueError(
                f"nonnegative: True given, False accepted where features are negative, "
                f"as those of blocks {first}-{last} are, down to {lowest:.3g}"
            )


def constants(pipeline: Pipeline, frozen: PyTree, images: jax.Array) -> PyTree:
    """Parameters of codes that need the mean of their shares, see `Code.constants`.

    Args:
      pipeline: with such a code in every coded stage.
      frozen: variables of the base model.
      images: uint8 `[N, H, W, C]`, those of the training split.
    """
    total, sums = len(images), None
    for start in range(0, total, CHUNK):
        targets = _targets_of(pipeline, frozen, images[start : start + CHUNK])
        found = [target.astype(jnp.float32).sum(axis=0) for target in targets]
        sums = jax.tree.map(jnp.add, sums, found) if sums else found
    means = [each[None] / total for each in sums or ()]
    return tuple(
        code.constants(splitting.shares(plan, mean)[:, 0])  # type: ignore
        for (plan, code), mean in zip(pipeline.codings, means, strict=True)
    )


@functools.partial(jax.jit, static_argnames="pipeline")
def _targets_of(
    pipeline: Pipeline, frozen: PyTree, images: jax.Array
) -> tuple[jax.Array, ...]:
    def local(spread: Spread, frozen: PyTree, images: jax.Array) -> tuple:
        return _targets(pipeline, frozen, images)

    targets = placement.over_batch(pipeline.mesh, local, (None, 0))
    return placement.everywhere(pipeline.mesh, targets(frozen, images))


def _targets(
    pipeline: Pipeline, frozen: PyTree, images: jax.Array
) -> tuple[jax.Array, ...]:
    """Exact outputs `[B, M*, M'*, D]` of the coded stages."""
    x, targets = pixels(pipeline, images), []
    for stage in pipeline.stages:
        x = compute(stage, frozen, x)
        if stage.coding:
            targets.append(x)
    return tuple(targets)


def base_losses(
    pipeline: Pipeline,
    variables: PyTree,
    batch: dict[str, jax.Array],
    label_smoothing: float = 0.0,
) -> tuple[jax.Array, PyTree]:
    """Cross-entropy `[B]` of the uncoded base model, and the variables that it moves.

    Args:
      pipeline: whose base model is trained.
      variables: of the base model.
      batch: `images` uint8 `[B, H, W, C]` and `labels` int32 `[B]`.
      label_smoothing: this share of the labels' weight goes to all classes alike.
    """
    train, mesh = pipeline.base.train, pipeline.mesh

    def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
        targets = jax.nn.one_hot(labels, logits.shape[-1])
        targets = optax.smooth_labels(targets, label_smoothing)
        return optax.softmax_cross_entropy(logits.astype(jnp.float32), targets)

    def local(spread: Spread, variables: PyTree, batch: dict) -> jax.Array:
        features = base_features(pipeline, variables, batch["images"])
        logits = pipeline.base.head(variables, features.astype(jnp.float32))
        return cross_entropy(logits, batch["labels"])

    if train is None:
        return placement.over_batch(mesh, local, (None, 0))(variables, batch), {}
    # Not example by example: a batch norm needs the statistics of the whole batch.
    batch = placement.divided(mesh, batch)
    logits, moved = train(variables, pixels(pipeline, batch["images"]))
    return cross_entropy(logits, batch["labels"]), moved


def coded_losses(
    pipeline: Pipeline,
    params: PyTree,
    frozen: PyTree,
    batch: dict[str, Any],
    available: jax.Array,
    end_to_end: bool = True,
    distillation: float = 0.0,
    supervision: float = 0.0,
) -> jax.Array:
    """Squared error `[B]` of the reconstructed features, their mean (section III-C).

    With several coded stages it is the sum of their errors, each over the mean square
    of what the stage should have put out. No gradient reaches `frozen`.

    Distillation adds the squared error of what the head makes of them
    (`BaseModel.hidden`), so that those errors count most that matter to it.
    Supervision adds the cross-entropy of the head's answers with the labels.

    Args:
      pipeline: the coded inference.
      params: of the codes, to be trained.
      frozen: variables of the base model.
      batch: `images` uint8 `[B, H, W, C]`, `targets` if `with_targets` has them, and
        `labels` int32 `[B]`, or `[B, k]` of groups, if there is supervision.
      available: bool `[n, B]` or `[n, 1]`, or `[S, n, ...]` for each stage its own.
      end_to_end: whether a stage is given what the stages before it reconstructed, or
        else what they should have.
      distillation: weight of the head's error, which takes `end_to_end`.
      supervision: weight of the cross-entropy, likewise.
    """

    def local(spread: Spread, params, frozen, batch, available) -> tuple:
        x, coded = pixels(pipeline, batch["images"]), 0
        errors, squares = [], []
        exact = True  # whether x is what it is without any loss
        targets = batch.get("targets") or _targets(pipeline, frozen, batch["images"])
        for stage in pipeline.stages:
            if not stage.coding:
                x = compute(stage, frozen, x)
                continue
            inputs = (stage, frozen, params[coded], x, spread)
            if exact and stage.coding.code.copied is None:
                data = splitting.shares(stage.coding.plan, targets[coded])
                features = jnp.concatenate([data, parity_features(*inputs)])
            else:
                features = coded_features(*inputs)
            merged = reconstruct(stage, params[coded], features, available[coded])
            target = targets[coded].astype(jnp.float32)
            error = merged.astype(jnp.float32) - target
            errors.append(jnp.square(error).mean(axis=(1, 2, 3)))
            squares.append(jnp.square(target).mean(axis=(1, 2, 3)))
            x, exact = (merged, False) if end_to_end else (targets[coded], True)
            coded += 1
        if distillation:
            ends = [x, targets[-1]]
            for stage in pipeline.stages[_last_coded(pipeline) + 1 :]:
                ends[1] = compute(stage, frozen, ends[1])
            hidden = pipeline.base.hidden or pipeline.base.head
            found, wanted = (
                hidden(frozen, end.astype(jnp.float32)).reshape(len(x), -1)
                for end in ends
            )
            errors.append(jnp.square(found - wanted).mean(axis=1))
            squares.append(jnp.square(wanted).mean(axis=1))
        if supervision:
            logits = pipeline.base.head(frozen, x.astype(jnp.float32))
            errors.append(_cross_entropy(logits, batch["labels"]))
            squares.append(jnp.ones_like(errors[-1]))
        return jnp.stack(errors), jnp.stack(squares)

    frozen = jax.lax.stop_gradient(frozen)
    available = per_stage(pipeline, available)
    axes = (None, None, 0, mask_axis(available))
    compare = placement.over_batch(pipeline.mesh, local, axes, 1)
    errors, squares = compare(params, frozen, batch, available)
    if len(pipeline.codings) > 1:
        # Here, since the mean is that of the whole batch, not of a device's part of it.
        errors = errors / squares.mean(axis=1, keepdims=True)
    ends = [weight for weight in (distillation, supervision) if weight]
    weights = jnp.array([1.0] * len(pipeline.codings) + ends)
    return (weights[:, None] * errors).sum(axis=0)


def _cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """`[B]`, of the mean over `[B, ..]` labels; one of -1 counts as nothing."""
    each = optax.softmax_cross_entropy_with_integer_labels(
        logits, jnp.maximum(labels, 0)
    )
    return jnp.where(labels < 0, 0, each).reshape(len(labels), -1).mean(axis=1)


def _last_coded(pipeline: Pipeline) -> int:
    return max(i for i, stage in enumerate(pipeline.stages) if stage.coding)
