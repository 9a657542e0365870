"""Losses: errors of the base model's answers, feature errors of the code."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from coded_jax import splitting
from coded_jax.checks import require, require_shape
from coded_jax.devices import placement
from coded_jax.devices.placement import PieceMap
from coded_jax.inference.pipeline import (
    Pipeline,
    base_features,
    exact_outputs,
    inputs_of,
    mask_axis,
    of_pieces,
    per_stage,
    require_inputs,
)
from coded_jax.inference.stages import (
    coded_features,
    compute,
    data_features,
    go_on,
    parity_features,
    reconstruct,
    small_of,
)
from coded_jax.training.config import TrainConfig
from coded_jax.types import DENSE, PyTree, State, apart, are_values, together


def base_losses(
    pipeline: Pipeline,
    variables: PyTree,
    batch: dict[str, jax.Array],
    label_smoothing: float = 0.0,
) -> tuple[jax.Array, PyTree]:
    """Computes the base model's loss and the variables that it updates itself.

    Args:
      pipeline: whose base model is trained.
      variables: of the base model.
      batch: `images` uint8 `[B, H, W, C]` and `labels`, see `types.Dataset`.
      label_smoothing: see `answer_losses`.

    Returns:
      The losses float32 `[B]` of `answer_losses`, and see `BaseModel.train`.
    """
    train, mesh = pipeline.base.train, pipeline.mesh

    def compute_part(spread: PieceMap, variables: PyTree, batch: dict) -> jax.Array:
        features = base_features(pipeline, variables, batch["images"])
        logits = pipeline.base.head(variables, features.astype(jnp.float32))
        return answer_losses(logits, batch["labels"], label_smoothing)

    if train is None:
        return placement.data_parallel(mesh, compute_part, (None, 0))(
            variables, batch
        ), {}
    # Not example by example: a batch norm needs the statistics of the whole batch.
    batch = placement.batch_sharded(mesh, batch)
    logits, updated = train(variables, inputs_of(pipeline, batch["images"]))
    return answer_losses(logits, batch["labels"], label_smoothing), updated


def answer_losses(
    logits: jax.Array, labels: jax.Array, label_smoothing: float = 0.0
) -> jax.Array:
    """Computes the loss `[B]` of what the head gives: the cross-entropy, or of values
    the squared error, a mean over the positions that count.

    Args:
      logits: `[B, ..., classes]`.
      labels: int32 `[B]`, `[B, k]` of groups, or `[B, H', W']` of positions, of which
        -1 has no loss; or values, float32 as the logits.
      label_smoothing: this share of the labels' weight goes to all classes alike.

    Raises:
      ValueError: labels have another shape.
    """
    logits = logits.astype(jnp.float32)
    if are_values(labels):
        require_shape("labels", labels, *logits.shape)
        losses, counted = jnp.square(logits - labels), jnp.ones(logits.shape)
    else:
        require_shape("labels", labels, *logits.shape[:-1])
        targets = jax.nn.one_hot(labels, logits.shape[-1])
        targets = optax.smooth_labels(targets, label_smoothing)
        targets = jnp.where(labels[..., None] < 0, 0, targets)
        losses = optax.softmax_cross_entropy(logits, targets)
        losses = jnp.where(labels < logits.shape[-1], losses, jnp.nan)  # no such class
        # Of a group all its images do, also those that it lacks.
        counted = labels >= 0 if labels.ndim == DENSE else jnp.ones(labels.shape)
    of_image = lambda x: x.reshape(len(labels), -1).sum(axis=1)
    return of_image(losses) / jnp.maximum(1, of_image(counted))


def coded_loss(
    pipeline: Pipeline,
    params: PyTree,
    variables: PyTree,
    images: jax.Array,
    available: jax.Array,
    *,
    labels: jax.Array | None = None,
    config: TrainConfig | None = None,
) -> jax.Array:
    """Computes the training loss of a pipeline's codes, to be differentiated.

    It is the mean squared error of the features that the decoders reconstruct, and what
    the config adds to it; see `coded_losses`.

    Args:
      pipeline: the coded inference.
      params: of its codes, as `pipeline.init` gives them.
      variables: of the base model, arrays; no gradient reaches them.
      images: `[B, H, W, C]`, uint8, or float32 as the base model takes them.
      available: the results that arrive, from `sample_erasures`.
      labels: int32 `[B]`, or `[B, k]` of groups of images, or of positions, see
        `types.Dataset`; needed for supervision.
      config: weights of distillation and supervision; `TrainConfig()` if None.

    Returns:
      float32 `[]`.

    Raises:
      ValueError: an argument has another form.
    """
    require_inputs(pipeline, params, images, available)
    batch = {"images": images}
    if labels is not None:
        sizes = (pipeline.k,) if pipeline.separate else ()
        if np.ndim(labels) > 2:  # of positions
            sizes = np.shape(labels)[1:]
        require_shape("labels", labels, images.shape[0], *sizes)
        batch["labels"] = labels
    needless = labels is not None or not (config and config.supervision)
    require("labels", labels, needless, "those of the images, for supervision,")
    return coded_losses(pipeline, params, variables, batch, available, config).mean()


def coded_losses(
    pipeline: Pipeline,
    params: PyTree,
    frozen: PyTree,
    batch: dict[str, Any],
    available: jax.Array,
    config: TrainConfig | None = None,
    weights: tuple[jax.Array, ...] | None = None,
    begins: tuple[int, ...] | None = None,
) -> jax.Array:
    """Computes the mean squared error `[B]` of reconstructed features (section III-C).

    With several coded stages it is the sum of their errors, each over the mean square
    of the stage's exact output. No gradient reaches `frozen`.

    Distillation adds the squared error of what the head makes of the features
    (`BaseModel.hidden`), so that those errors count most that matter to it.
    Supervision adds `answer_losses` of the head's answers.

    Args:
      pipeline: the coded inference.
      params: of the codes, to be trained.
      frozen: variables of the base model.
      batch: `images` `[B, H, W, C]`, `targets` if `with_targets` has them, and `labels`
        if there is supervision.
      available: bool `[n, B]` or `[n, 1]`, or `[S, n, ...]` for each stage its own.
      config: its `stage_training` says whether a stage is given what the stages before
        it reconstructed or their exact outputs, and `distillation` and `supervision`
        are the weights of those terms; `TrainConfig()` if None.
      weights: for each coded stage `[D]`, of the errors of its feature maps; all alike
        if None.
      begins: the first example, for each stage, that may lose something there or later
        alone: nothing is lost in the stages before, which are not computed for it. Only
        on one device. If None, all may from the first stage on.
    """
    config = config or TrainConfig()
    of_maps = weights or (jnp.ones(()),) * len(pipeline.stages)

    # Nothing is spread: each device runs all pieces of its part of the batch. These are
    # as many operations, and nothing but gradients is exchanged.
    def compare_part(spread: PieceMap, params, frozen, batch, available) -> tuple:
        targets = batch.get("targets")
        if targets is None:
            targets = exact_outputs(pipeline, frozen, batch["images"])
        groups = [
            _compare_stages(pipeline, config, of_maps, params, frozen, *inputs)
            for inputs in _by_begin(begins, batch["images"], targets, available)
        ]
        errors, squares, exact, decoded = (
            jax.tree.map(lambda *x: jnp.concatenate(x), *of_groups)
            for of_groups in zip(*groups, strict=True)
        )
        variables = (params, frozen)
        ends = compare_ends(pipeline, config, *variables, batch, exact, decoded)
        return jnp.stack(errors + ends[0]), jnp.stack(squares + ends[1])

    frozen = jax.lax.stop_gradient(frozen)
    available = of_pieces(pipeline, per_stage(pipeline, available))
    axes = (None, None, 0, mask_axis(available))
    compare = placement.data_parallel(pipeline.mesh, compare_part, axes, 1)
    errors, squares = compare(params, frozen, batch, available)
    if len(pipeline.stages) > 1:
        # Here, since the mean is that of the whole batch, not of a device's part of it.
        errors = errors / squares.mean(axis=1, keepdims=True)
    of_terms = jnp.array([1.0] * len(pipeline.stages) + config.ends_weights)
    return (of_terms[:, None] * errors).sum(axis=0)


def _by_begin(
    begins: tuple[int, ...] | None,
    images: jax.Array,
    targets: tuple[jax.Array, ...],
    available: jax.Array,
) -> Iterator[tuple[jax.Array, tuple[jax.Array, ...], jax.Array, int]]:
    """Yields images, targets and masks of the examples whose losses begin in each
    stage, and its number; see `coded_losses`."""
    begins = (0,) if begins is None else begins
    ends = (*begins[1:], len(images))
    for begin, (first, end) in enumerate(zip(begins, ends, strict=True)):
        masks = available[..., first:end] if available.shape[-1] > 1 else available
        own_targets = tuple(target[first:end] for target in targets)
        yield images[first:end], own_targets, masks, begin


def _compare_stages(
    pipeline: Pipeline,
    config: TrainConfig,
    of_maps: tuple[jax.Array, ...],
    params: PyTree,
    frozen: PyTree,
    images: jax.Array,
    targets: tuple[jax.Array, ...],
    available: jax.Array,
    begin: int,
) -> tuple[list[jax.Array], list[jax.Array], State, State]:
    """Compares what the coded stages put out with what is exact, see `coded_losses`.

    Args:
      pipeline, config, params, frozen: as of `coded_losses`.
      of_maps: weights of the feature maps, for each stage.
      images: `[B, H, W, C]`.
      targets: of `exact_outputs`.
      available: bool `[S, n, B]` or `[S, n, 1]`, of pieces.
      begin: number of the first stage that may lose something; those before it are not
        computed, since what they put out is exact.

    Returns:
      For each stage its errors `[B]`, and the mean squares of what is exact; and the
      exact output of the last stage and that of its decoder, with what is kept.
    """
    state = exact = inputs_of(pipeline, images)
    is_exact, small = True, None
    errors, squares = [], []
    of_stages = (pipeline.stages, pipeline.of_stages(params), available, targets)
    for i, (stage, own, mask, target, weight) in enumerate(
        zip(*of_stages, of_maps, strict=True)
    ):
        squares.append(_mean_square(target, weight))
        # Of the exact chain the client's blocks alone, and of them what is kept.
        exact = together(target, apart(compute(stage.before, frozen, exact))[1])
        if i < begin:
            errors.append(jnp.zeros_like(squares[-1]))
            state = exact
            continue
        x, kept = apart(compute(stage.before, frozen, state))
        small = go_on(stage, frozen, small)
        if is_exact and stage.code.quorum.copies is None:
            # The data shares are parts of the target.
            exact_shares = functools.partial(splitting.shares, stage.plan, target)
            uncut = stage.code.uncut
            data = data_features(stage, frozen, x) if uncut else exact_shares()
            parity = parity_features(stage, frozen, own, x, small)
            features = jnp.concatenate([data, parity])
        else:
            features = coded_features(stage, frozen, own, x, small=small)
        small = small_of(stage, features, mask)
        merged = reconstruct(stage, own, features, mask, x)
        errors.append(_mean_square(merged - target, weight))
        end_to_end = config.stage_training == "end_to_end"
        is_exact = not end_to_end
        state = together(merged, kept) if end_to_end else exact
    return errors, squares, exact, state


def compare_ends(
    pipeline: Pipeline,
    config: TrainConfig,
    params: PyTree,
    frozen: PyTree,
    batch: dict[str, Any],
    target: State,
    x: State,
) -> tuple[list[jax.Array], list[jax.Array]]:
    """Computes the terms of distillation and supervision, if there are any: errors and
    mean squares `[B]`, of the last decoder's output `x` and what that should be."""
    errors, squares = [], []
    copy, variables = pipeline.tail_copy, frozen
    if copy is not None:
        variables = copy.variables(params[-1], frozen)
        x = target if copy.intact else x
        x = jax.lax.stop_gradient(x) if config.ends == "tail" else x
    last = compute(pipeline.after, variables, x)
    if config.distillation:
        exact = compute(pipeline.after, frozen, target)
        hidden = _hidden(pipeline, variables, last)
        exact_hidden = _hidden(pipeline, frozen, exact)
        errors.append(jnp.square(hidden - exact_hidden).mean(axis=1))
        squares.append(jnp.square(exact_hidden).mean(axis=1))
    if config.supervision:
        logits = pipeline.base.head(variables, last.astype(jnp.float32))
        errors.append(answer_losses(logits, batch["labels"]))
        squares.append(jnp.ones_like(errors[-1]))
    return errors, squares


def focus_weights(
    losses: jax.Array, available: jax.Array, most: int, focus: float
) -> jax.Array:
    """Computes weights of examples, larger for erasure patterns with larger losses.

    The weighted loss is near that of the worst pattern, which is not left behind: as in
    distributionally robust optimisation over groups (Sagawa et al. 2020), here with the
    groups of one batch.

    Args:
      losses: `[B]`.
      available: bool `[n, B]` or `[S, n, B]`.
      most: examples that lose more results weigh 1.
      focus: F, weights are in proportion to `exp(F L / L*)`, of the pattern's mean loss
        L and that of all patterns, `L*`.

    Returns:
      float32 `[B]`, of mean 1; no gradient reaches them.
    """
    losses = jax.lax.stop_gradient(losses)
    arrived = available.reshape(-1, *available.shape[-2:]).all(axis=0)
    counted = (~arrived).sum(axis=0) <= most
    same = (arrived[:, :, None] == arrived[:, None]).all(axis=0)
    of_pattern = (same * losses[None]).sum(axis=1) / same.sum(axis=1)
    mean = lambda x: (counted * x).sum() / jnp.maximum(1, counted.sum())
    exponents = focus * of_pattern / jnp.maximum(mean(of_pattern), 1e-30)
    highest = jnp.max(jnp.where(counted, exponents, -jnp.inf))
    powers = jnp.exp(jnp.where(counted, exponents - highest, -jnp.inf))
    return jnp.where(counted, powers / mean(powers), 1.0)


def _mean_square(x: jax.Array, weight: jax.Array) -> jax.Array:
    """Averages the squares of `x` over all but the first axis, float32.

    Args:
      x: `[B, M*, M'*, D]`.
      weight: of the feature maps, `[D]`, or `[]` for all alike.
    """
    by_map = jnp.square(x.astype(jnp.float32)).mean(axis=(1, 2))
    return (by_map * jnp.broadcast_to(weight, by_map.shape)).mean(axis=1)


def _hidden(pipeline: Pipeline, frozen: PyTree, features: jax.Array) -> jax.Array:
    """Computes the layer that distillation compares, `[B, Q]`."""
    hidden = pipeline.base.hidden or pipeline.base.head
    return hidden(frozen, features.astype(jnp.float32)).reshape(len(features), -1)
