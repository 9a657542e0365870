"""Losses: errors of the base model's answers, feature errors of the code."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
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
    begin_stage,
    compute,
    end_stage,
    results_beside_exact,
    stage_results,
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
    values = are_values(labels)
    require_shape("labels", labels, logits.shape if values else logits.shape[:-1])
    if values:
        losses, counted = jnp.square(logits - labels), jnp.ones(logits.shape)
    else:
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
    if config and config.supervision:
        accepted = "those of the images, for supervision,"
        require("labels", labels, labels is not None, accepted)
        batch["labels"] = labels
    return coded_losses(
        pipeline, params, variables, batch, available, config=config
    ).mean()


def coded_losses(
    pipeline: Pipeline,
    params: PyTree,
    frozen: PyTree,
    batch: dict[str, Any],
    available: jax.Array,
    *,
    config: TrainConfig | None = None,
    starts: tuple[int, ...] = (0,),
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
      config: its `distillation` and `supervision` are the weights of those terms;
        `TrainConfig()` if None.
      starts: the first example, for each of the first stages, that may lose something
        there or later alone: nothing is lost in the stages before, which are not
        computed for it. More than one only on one device.
    """
    config = config or TrainConfig()

    # Nothing is spread: each device runs all pieces of its part of the batch. These are
    # as many operations, and nothing but gradients is exchanged.
    def compare_part(spread: PieceMap, params, frozen, batch, available) -> tuple:
        images, targets = batch["images"], batch.get("targets")
        if targets is None:
            targets = exact_outputs(pipeline, frozen, images)
        # What each stage is given if nothing is coded, and the output of the last one.
        states, groups = [inputs_of(pipeline, images)], []
        for stage, target in zip(pipeline.stages, targets, strict=True):
            kept = apart(compute(stage.before, frozen, states[-1]))[1]
            states.append(together(target, kept))
        for number, end in enumerate((*starts[1:], len(images))):
            rows = slice(starts[number], end)
            exact = jax.tree.map(lambda x, rows=rows: x[rows], states)
            # Nothing is lost before the stage of this number.
            decoded, errors = exact[number], [jnp.zeros(end - starts[number])] * number
            for i in range(number, len(pipeline.stages)):
                stage, own = pipeline.stages[i], params[i]
                sent = begin_stage(stage, frozen, own, decoded)
                target = apart(exact[i + 1])[0]
                if i == number and stage.code.quorum.copies is None:
                    results = results_beside_exact(
                        stage, frozen, own, sent.queries, target
                    )
                else:
                    results = stage_results(stage, frozen, own, sent.queries)
                arrived = available[i][..., rows]
                decoded = end_stage(
                    stage, own, results, arrived, sent.kept, unconditional=True
                )
                errors.append(_mean_square(apart(decoded)[0] - target))
            groups.append((errors, decoded))
        errors, decoded = jax.tree.map(lambda *x: jnp.concatenate(x), *groups)
        terms = [*zip(errors, map(_mean_square, targets), strict=True)]
        outputs = (states[-1], decoded)
        terms += compare_ends(pipeline, config, params, frozen, batch, outputs=outputs)
        return tuple(map(jnp.stack, zip(*terms, strict=True)))

    frozen = jax.lax.stop_gradient(frozen)
    available = of_pieces(pipeline, per_stage(pipeline, available))
    axes = (None, None, 0, mask_axis(available))
    compare = placement.data_parallel(pipeline.mesh, compare_part, axes, 1)
    errors, squares = compare(params, frozen, batch, available)
    weights = jnp.array([1.0] * len(pipeline.stages) + config.ends_weights)
    if len(pipeline.stages) > 1:
        # Here, since the mean is that of the whole batch, not of a device's part of it.
        errors = errors / squares.mean(axis=1, keepdims=True)
    return (weights[:, None] * errors).sum(axis=0)


def compare_ends(
    pipeline: Pipeline,
    config: TrainConfig,
    params: PyTree,
    frozen: PyTree,
    batch: dict[str, Any],
    outputs: tuple[State, State],
) -> list[tuple[jax.Array, jax.Array]]:
    """Computes the terms of distillation and supervision, if there are any: of each the
    errors, and the squares of what is exact, both `[B]`.

    Args:
      pipeline, config, params, frozen, batch: as of `coded_losses`.
      outputs: of the last coded stage, the exact one and that of its decoder.
    """
    exact, decoded = outputs
    copy, terms = pipeline.tail_copy, []
    variables = frozen if copy is None else copy.variables(params[-1], frozen)
    last = compute(pipeline.after, variables, decoded)
    if config.distillation:
        exact_last = compute(pipeline.after, frozen, exact)
        hidden = _hidden(pipeline, variables, last)
        exact_hidden = _hidden(pipeline, frozen, exact_last)
        errors = jnp.square(hidden - exact_hidden).mean(axis=1)
        terms.append((errors, jnp.square(exact_hidden).mean(axis=1)))
    if config.supervision:
        logits = pipeline.base.head(variables, last.astype(jnp.float32))
        losses = answer_losses(logits, batch["labels"])
        terms.append((losses, jnp.ones_like(losses)))
    return terms


def _mean_square(x: jax.Array) -> jax.Array:
    """Averages the squares of `x` over all but the first axis, float32 `[B]`."""
    return jnp.square(x.astype(jnp.float32)).mean(axis=(1, 2, 3))


def _hidden(pipeline: Pipeline, frozen: PyTree, features: jax.Array) -> jax.Array:
    """Computes the layer that distillation compares, `[B, Q]`."""
    hidden = pipeline.base.hidden or pipeline.base.head
    return hidden(frozen, features.astype(jnp.float32)).reshape(len(features), -1)


def keep_statistics(pipeline: Pipeline) -> bool:
    """Returns whether a pipeline codes groups of images by parity models of a network
    that sets variables itself while it is trained.

    As one with batch norms does: it takes the statistics of the batch, and keeps
    running means of them. A sum of images has others than an image.
    """
    worker = pipeline.stages[0].code.traits.parity_worker
    return pipeline.examples.grouped and None not in (worker, pipeline.base.train)


def parity_model_losses(
    pipeline: Pipeline,
    params: PyTree,
    frozen: PyTree,
    batch: dict[str, jax.Array],
    available: jax.Array,
    config: TrainConfig,
) -> tuple[jax.Array, PyTree]:
    """Computes the mean squared error `[B]` of decoded logits, and new statistics.

    Args:
      pipeline: for which `keep_statistics` is true.
      params: of its code, to be trained.
      frozen: variables of the base model; no gradient reaches them.
      batch: `images` `[B, k H, W, C]`, `labels`, and `targets` if
        `exact_targets.with_targets` has them.
      available: bool `[n, B]`, True where the result arrived.
      config: weights of distillation and supervision, see `coded_losses`.

    Returns:
      The losses, float32, and the parameters that take the place of those which the
      networks set themselves (`BaseModel.train`), structured as `params` without the
      others.
    """
    (stage,), (own,) = pipeline.stages, pipeline.of_stages(params)
    frozen = jax.tree.map(jax.lax.stop_gradient, frozen)
    # Not example by example: a batch norm needs the statistics of the whole batch.
    batch = placement.batch_sharded(pipeline.mesh, batch)
    targets = batch.get("targets")
    if targets is None:
        targets = exact_outputs(pipeline, frozen, batch["images"])
    sent = begin_stage(stage, frozen, own, inputs_of(pipeline, batch["images"]))
    worker, train = stage.code.traits.parity_worker, pipeline.base.train
    assert worker is not None and train is not None  # see `keep_statistics`
    networks = worker(own, frozen)
    results, updates = [*splitting.shares(stage.plan, targets[0])], []
    for j, query in enumerate(sent.queries[pipeline.k :]):
        network = jax.tree.map(lambda leaf, j=j: leaf[j], networks)
        logits, updated = train(network, query)
        results.append(logits[:, :, None].astype(results[0].dtype))
        updates.append(updated)
    ended = end_stage(
        stage, own, jnp.stack(results), available, sent.kept, unconditional=True
    )
    decoded = apart(ended)[0]
    outputs = (targets[0], decoded)
    ends = compare_ends(pipeline, config, params, frozen, batch, outputs=outputs)
    errors = _mean_square(decoded - targets[0])
    for weight, (end_errors, _) in zip(config.ends_weights, ends, strict=True):
        errors += weight * end_errors
    # Parameters are added to the base model's variables, or stand in their place: what
    # changes a network's variables changes them by as much.
    updated = jax.tree.map(lambda *leaves: jnp.stack(leaves), *updates)
    changed = jax.tree.map(
        lambda old, before, after: old + (after - before),
        _part(own["worker"], updated),
        _part(networks, updated),
        updated,
    )
    return errors, ({"worker": jax.lax.stop_gradient(changed)},)


def _part(tree: PyTree, like: PyTree) -> PyTree:
    """Returns the leaves of a tree that another one has, too."""
    if not isinstance(like, dict):
        return tree
    return {name: _part(tree[name], part) for name, part in like.items()}
