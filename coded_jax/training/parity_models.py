"""The loss of ParM's parity models, where the network is another function in training.

As a network with batch norms is: it takes the statistics of the batch, and keeps
running means of them. A sum of images has others than an image.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from coded_jax import splitting
from coded_jax.devices import placement
from coded_jax.inference.pipeline import Pipeline, exact_outputs, inputs_of
from coded_jax.inference.stages import begin_stage, end_stage
from coded_jax.training.config import TrainConfig
from coded_jax.training.losses import compare_ends
from coded_jax.types import PyTree, apart


def keep_statistics(pipeline: Pipeline) -> bool:
    """Returns whether a pipeline codes groups of images by parity models of a network
    that sets variables itself while it is trained."""
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
      config: weights of distillation and supervision, see `losses.coded_losses`.

    Returns:
      The losses, float32, and the parameters that take the place of those which the
      networks set themselves (`BaseModel.train`), structured as `params` without the
      others.
    """
    (stage,), (own,) = pipeline.stages, pipeline.of_stages(params)
    frozen = jax.lax.stop_gradient(frozen)
    # Not example by example: a batch norm needs the statistics of the whole batch.
    batch = placement.batch_sharded(pipeline.mesh, batch)
    targets = batch.get("targets")
    if targets is None:
        targets = exact_outputs(pipeline, frozen, batch["images"])
    sent = begin_stage(stage, frozen, own, inputs_of(pipeline, batch["images"]))
    networks = stage.code.traits.parity_worker(own, frozen)  # type: ignore
    results, updates = [*splitting.shares(stage.plan, targets[0])], []
    for j, query in enumerate(sent.queries[pipeline.k :]):
        network = jax.tree.map(lambda leaf, j=j: leaf[j], networks)
        logits, updated = pipeline.base.train(network, query)  # type: ignore
        results.append(logits[:, :, None].astype(results[0].dtype))
        updates.append(updated)
    ended = end_stage(
        stage, own, jnp.stack(results), available, sent.kept, unconditional=True
    )
    decoded = apart(ended)[0]
    errors = jnp.square((decoded - targets[0]).astype(jnp.float32)).mean(axis=(1, 2, 3))
    outputs = (targets[0], decoded)
    ends = compare_ends(pipeline, config, params, frozen, batch, outputs=outputs)
    for weight, end in zip(config.ends_weights, ends, strict=True):
        errors += weight * end.errors
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
