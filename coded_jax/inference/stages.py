"""One coded stage, in three steps that every walk over the stages is made of.

    begin_stage     state -> queries [n, B, h, w, C]            the client
    stage_results   queries -> results [n, B, M, M', D]         n devices
    end_stage       results that arrived -> next state          the client

Inference takes them one after the other; a service has workers in place of the second
one, and a training replaces parts of it by what it knows already. Everything is
computed in the dtype of the stage's input; parameters are cast to it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from coded_jax import splitting
from coded_jax.codes import margins
from coded_jax.devices.placement import PieceMap, run_locally
from coded_jax.splitting import Plan
from coded_jax.types import (
    Block,
    Code,
    Kept,
    PyTree,
    State,
    apart,
    chain,
    together,
)


class Segment(NamedTuple):
    """Blocks of the base model that are computed whole, without a code.

    Attributes:
      f_conv: `(variables, [B, H, W, C]) -> [B, M*, M'*, D]`.
      blocks: the first and the last of them, counted from 1; None where there is no
        block, and `f_conv` returns its input.
    """

    f_conv: Block = chain(())
    blocks: tuple[int, int] | None = None


class CodedStage(NamedTuple):
    """Blocks of the base model that n devices compute, and the blocks before them.

    Attributes:
      f_conv: `(variables, [B, H, W, C]) -> [B, M*, M'*, D]`.
      blocks: the first and the last of them, counted from 1.
      plan: how the stage's input is split.
      code: the erasure code of its pieces.
      before: the blocks between the images, or the decoder of the coded stage before,
        and this stage; they are computed whole.
    """

    f_conv: Block
    blocks: tuple[int, int]
    plan: Plan
    code: Code
    before: Segment = Segment()

    @property
    def result_shape(self) -> tuple[int, int, int]:
        """Shape of what a device returns, `(M, M', D)`, or `(h', w', D)` if uncut."""
        return (
            self.plan.output_shape if self.code.traits.uncut else self.plan.share_shape
        )


class Sent(NamedTuple):
    """The arrays that a coded stage begins with.

    Attributes:
      queries: `[n, B, h, w, C]`, one for each device; of a service n arrays.
      kept: what the client keeps until the results are there, arrays `[B, ...]`: for a
        guided decoder the stage's input first, then what later blocks need.
    """

    queries: Any
    kept: Kept = ()


def compute(blocks: Segment | CodedStage, frozen: PyTree, x: State) -> State:
    """Computes blocks whole, without a code: `[B, H, W, C] -> [B, M*, M'*, D]`."""
    return blocks.f_conv(_cast(frozen, apart(x)[0].dtype), x)


def whole_stage(stage: CodedStage, frozen: PyTree, state: State) -> State:
    """Computes the blocks before a stage and its own, all of them without a code."""
    return compute(stage, frozen, compute(stage.before, frozen, state))


def begin_stage(
    stage: CodedStage, frozen: PyTree, params: PyTree, state: State
) -> Sent:
    """Computes the blocks before a stage, splits its input and encodes the pieces.

    Args:
      stage: the coded stage.
      frozen: variables of the base model.
      params: of this stage's code.
      state: the images as the first block takes them, or what the stage before ended
        with.
    """
    x, kept = apart(compute(stage.before, frozen, state))
    pieces = splitting.split(stage.plan, x)
    queries = stage.code.encode(_cast(params, x.dtype), pieces)
    return Sent(queries, (x, *kept) if stage.code.traits.guided else kept)


def stage_results(
    stage: CodedStage,
    frozen: PyTree,
    params: PyTree,
    queries: jax.Array,
    spread: PieceMap = run_locally,
) -> jax.Array:
    """Computes the results of all n devices.

    Args:
      stage: the coded stage.
      frozen: variables of the base model.
      params: of this stage's code, which may have networks for the parity pieces.
      queries: `[n, B, h, w, C]`, of `begin_stage`.
      spread: how the pieces come to their devices.

    Returns:
      `[n, B, M, M', D]`, or `[n, B, h', w', D]` of a code that is uncut.
    """
    k = stage.plan.k
    if stage.code.traits.parity_worker is None:
        outputs = _on_devices(stage, frozen, queries, spread)
    else:
        data = _on_devices(stage, frozen, queries[:k], spread)
        parity = _parity_outputs(stage, frozen, params, queries[k:])
        outputs = jnp.concatenate([data, parity])
    if stage.code.traits.uncut:
        return outputs
    return splitting.cut(stage.plan, outputs, stage.code.quorum.copies)


def results_beside_exact(
    stage: CodedStage,
    frozen: PyTree,
    params: PyTree,
    queries: jax.Array,
    output: jax.Array,
) -> jax.Array:
    """Computes `stage_results` where the stage's uncoded output is known already.

    In a training its shares are the data results, so that the parity pieces alone are
    computed. Only for codes whose first k queries are the data pieces themselves.

    Args:
      stage, frozen, params, queries: as of `stage_results`.
      output: `[B, M*, M'*, D]`.
    """
    plan, k = stage.plan, stage.plan.k
    parity = _parity_outputs(stage, frozen, params, queries[k:])
    if stage.code.traits.uncut:
        return jnp.concatenate([_on_devices(stage, frozen, queries[:k]), parity])
    parity = splitting.cut(plan, parity, [None] * len(parity))
    return jnp.concatenate([splitting.shares(plan, output), parity])


def end_stage(
    stage: CodedStage,
    params: PyTree,
    results: jax.Array,
    available: jax.Array,
    kept: Kept = (),
    *,
    unconditional: bool = False,
) -> State:
    """Decodes what arrived and merges the shares; a systematic code that lost no data
    result decodes nothing, and one that `fills` some lost shares decodes again.

    Args:
      stage: the coded stage.
      params: of this stage's code.
      results: of `stage_results`; lost slots may hold anything.
      available: bool `[n, B]` or `[n, 1]`.
      kept: of `begin_stage`.
      unconditional: whether to decode once in any case, as for gradients: XLA's CPU
        backend compiles those of convolutions in a conditional to a naive loop.

    Returns:
      `[B, M*, M'*, D]`, with what later blocks need beside it.
    """
    plan, code, guide = stage.plan, stage.code, ()
    if code.traits.guided:
        guide, kept = (splitting.split(plan, kept[0]),), kept[1:]
    decode = functools.partial(code.decode, _cast(params, results.dtype))
    if unconditional or not code.systematic:
        merged = splitting.merge(plan, decode(results, available, *guide))
    else:
        merged = jax.lax.cond(
            jnp.all(available[: plan.k]),
            lambda results: splitting.merge(plan, shares_of(stage, results[: plan.k])),
            functools.partial(_decode_all, stage, decode, available, guide),
            results,
        )
    return together(merged, kept)


def run_stage(
    stage: CodedStage,
    frozen: PyTree,
    params: PyTree,
    state: State,
    available: jax.Array,
    *,
    spread: PieceMap = run_locally,
) -> State:
    """Takes the three steps of a coded stage; arguments as of each of them."""
    sent = begin_stage(stage, frozen, params, state)
    results = stage_results(stage, frozen, params, sent.queries, spread)
    return end_stage(stage, params, results, available, sent.kept)


def shares_of(stage: CodedStage, results: jax.Array) -> jax.Array:
    """Returns the shares `[m, B, M, M', D]` of all results or the first ones."""
    return splitting.cut(stage.plan, results) if stage.code.traits.uncut else results


def _decode_all(
    stage: CodedStage,
    decode: Callable[..., jax.Array],
    available: jax.Array,
    guide: tuple[jax.Array, ...],
    results: jax.Array,
) -> jax.Array:
    """Decodes until no share is missing, what was filled as if it had arrived, and
    merges the shares: `[B, M*, M'*, D]`."""
    plan, k = stage.plan, stage.plan.k
    fills = stage.code.traits.fills or k
    returned = available[:k, :, None, None, None]

    def again(shares: jax.Array, arrived: jax.Array) -> jax.Array:
        if stage.code.traits.uncut:  # as if devices had returned the filled shares
            merged = splitting.merge(plan, shares)
            windows = [margins.window_of(plan, merged, i) for i in range(k)]
            shares = jnp.stack(windows)
        data = jnp.where(returned, results[:k], shares)
        return decode(jnp.concatenate([data, results[k:]]), arrived, *guide)

    shares = decode(results, available, *guide)
    for filled in range(fills, k, fills):
        missing = ~available[:k]
        known = ~missing | (missing.cumsum(axis=0) <= filled)
        arrived = jnp.concatenate([known, available[k:]])
        same = lambda shares, arrived: shares
        shares = jax.lax.cond(jnp.all(known), same, again, shares, arrived)
    return splitting.merge(plan, shares)


def _cast(variables: PyTree, dtype: jnp.dtype) -> PyTree:
    """Casts real numbers to `dtype`; integers, keys and the like stay as they are."""
    is_real = lambda x: jnp.issubdtype(x.dtype, jnp.floating)
    return jax.tree.map(lambda x: x.astype(dtype) if is_real(x) else x, variables)


def _parity_outputs(
    stage: CodedStage, frozen: PyTree, params: PyTree, parity: jax.Array
) -> jax.Array:
    """Runs the parity pieces in one place, by networks of their own if they have any.

    A device has its part of the batch; to exchange pieces would spare it no operation.
    """
    if stage.code.traits.parity_worker is None:
        # In training alone: with gradients, a `vmap` is cheaper on accelerators.
        return jax.vmap(lambda piece: compute(stage, frozen, piece))(parity)
    networks = stage.code.traits.parity_worker(params, frozen)

    def run_own(i: int) -> jax.Array:
        variables = jax.tree.map(lambda x: x[i], networks)
        return _on_devices(stage, variables, parity[i : i + 1])

    # One by one: a `vmap` over kernels is a grouped convolution, slow on CPUs.
    return jnp.concatenate([run_own(i) for i in range(len(parity))])


def _on_devices(
    stage: CodedStage, frozen: PyTree, sent: jax.Array, spread: PieceMap = run_locally
) -> jax.Array:
    """Runs `f_conv` on pieces `[m, B, h, w, C]`; the shares are not yet cut out."""

    local = spread is run_locally

    def run(pieces: jax.Array) -> jax.Array:
        # One batch, not a `vmap`: with an axis of pieces between its layers, a TPU's
        # compiler copies all of them from one layout to another and back. What has just
        # been cut is best concatenated, what an all-to-all has brought is one array.
        # The barrier keeps that out of the first convolution's fusion.
        if local:
            joined = jnp.concatenate(list(pieces))
        else:
            joined = pieces.reshape(-1, *pieces.shape[2:])
        outputs = compute(stage, frozen, jax.lax.optimization_barrier(joined))
        if local:
            return jnp.stack(jnp.split(outputs, len(pieces)))
        return outputs.reshape(*pieces.shape[:2], *outputs.shape[1:])

    return spread(run, sent)
