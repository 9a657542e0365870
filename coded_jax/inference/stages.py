"""One coded stage: what is split, encoded, computed by n devices, decoded and merged.

All is computed in the dtype of the stage's input; parameters are cast to it.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from coded_jax import splitting
from coded_jax.devices.placement import Spread, here
from coded_jax.splitting import SplitPlan
from coded_jax.types import Block, Code, PyTree


class Coding(NamedTuple):
    """How a stage is distributed: how its input is split, and by what code."""

    plan: SplitPlan
    code: Code


class Stage(NamedTuple):
    """Blocks of the base model that are computed as one.

    Attributes:
      f_conv: `(variables, [B, H, W, C]) -> [B, M*, M'*, D]`.
      blocks: the first and the last, from 1 on.
      coding: None if it is computed whole.
    """

    f_conv: Block
    blocks: tuple[int, int]
    coding: Coding | None = None


def compute(stage: Stage, frozen: PyTree, x: jax.Array) -> jax.Array:
    """A stage without its code: `[B, H, W, C] -> [B, M*, M'*, D]`."""
    return stage.f_conv(_cast(frozen, x.dtype), x)


def queries(stage: Stage, params: PyTree, x: jax.Array) -> jax.Array:
    """What the n devices are sent: `[n, B, h, w, C]` for the stage's input
    `[B, H, W, C]`."""
    plan, code = _coding(stage)
    return code.encode(_cast(params, x.dtype), splitting.split(plan, x))


def parity_features(
    stage: Stage, frozen: PyTree, params: PyTree, x: jax.Array, spread: Spread = here
) -> jax.Array:
    """What the r devices with parity pieces compute; see `coded_features`.

    Not of a code whose first k queries are other than the pieces.

    Returns:
      `[r, B, M, M', D]`.
    """
    plan, _ = _coding(stage)
    parity = queries(stage, params, x)[plan.k :]
    outputs = _mixtures(stage, frozen, params, parity, spread)
    return splitting.cut(plan, outputs, [None] * len(parity))


def coded_features(
    stage: Stage, frozen: PyTree, params: PyTree, x: jax.Array, spread: Spread = here
) -> jax.Array:
    """What the n devices compute.

    Args:
      stage: a coded one.
      frozen: variables of the base model.
      params: of this stage's code.
      x: the stage's input `[B, H, W, C]`.
      spread: how the pieces come to their devices.

    Returns:
      `[n, B, M, M', D]`.
    """
    plan, code = _coding(stage)
    sent = queries(stage, params, x)
    if code.worker is None:
        outputs = _on_devices(stage, frozen, sent, spread)
    else:
        data = _on_devices(stage, frozen, sent[: plan.k], spread)
        mixtures = _mixtures(stage, frozen, params, sent[plan.k :], spread)
        outputs = jnp.concatenate([data, mixtures])
    return splitting.cut(plan, outputs, code.copied)


def reconstruct(
    stage: Stage, params: PyTree, features: jax.Array, available: jax.Array
) -> jax.Array:
    """The stage's output from the results that arrived.

    Args:
      stage: a coded one.
      params: of this stage's code.
      features: `[n, B, M, M', D]`; lost slots may hold anything.
      available: bool `[n, B]` or `[n, 1]`.

    Returns:
      `[B, M*, M'*, D]`.
    """
    plan, code = _coding(stage)
    shares = code.decode(_cast(params, features.dtype), features, available)
    return splitting.merge(plan, shares)


def recover(
    stage: Stage, params: PyTree, features: jax.Array, available: jax.Array
) -> jax.Array:
    """`reconstruct`, but nothing is decoded where a systematic code has lost nothing.

    Not for training: XLA's CPU backend compiles gradients of its convolutions in a
    conditional to a naive loop.
    """
    plan, code = _coding(stage)
    if not code.systematic:
        return reconstruct(stage, params, features, available)
    return jax.lax.cond(
        jnp.all(available[: plan.k]),
        lambda features: splitting.merge(plan, features[: plan.k]),
        lambda features: reconstruct(stage, params, features, available),
        features,
    )


def _coding(stage: Stage) -> Coding:
    if stage.coding is None:
        raise ValueError("stage: one without a code given, a coded one accepted")
    return stage.coding


def _cast(variables: PyTree, dtype: jnp.dtype) -> PyTree:
    """Real numbers in `dtype`; integers, keys and the like as they are."""
    real = lambda x: jnp.issubdtype(x.dtype, jnp.floating)
    return jax.tree.map(lambda x: x.astype(dtype) if real(x) else x, variables)


def _mixtures(
    stage: Stage, frozen: PyTree, params: PyTree, sent: jax.Array, spread: Spread
) -> jax.Array:
    """`_on_devices` for the r parity pieces, by their own networks if they have any."""
    worker = _coding(stage).code.worker
    if worker is None:
        return _on_devices(stage, frozen, sent, spread)
    own = worker(params, frozen)

    def one(i: int) -> jax.Array:
        variables = jax.tree.map(lambda x: x[i], own)
        return _on_devices(stage, variables, sent[i : i + 1], spread)

    # One by one: a `vmap` over kernels is a grouped convolution, slow on CPUs.
    return jnp.concatenate([one(i) for i in range(len(sent))])


def _on_devices(
    stage: Stage, frozen: PyTree, sent: jax.Array, spread: Spread
) -> jax.Array:
    """`f_conv` of each piece, `[m, B, h, w, C]`, before the cut."""
    return spread(jax.vmap(lambda pieces: compute(stage, frozen, pieces)), sent)
