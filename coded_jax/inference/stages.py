"""One coded stage: its input is split, encoded, computed by n devices, decoded, merged.

Everything is computed in the dtype of the stage's input; parameters are cast to it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from coded_jax import splitting
from coded_jax.codes import margins, smaller
from coded_jax.devices.placement import PieceMap, run_locally
from coded_jax.splitting import SplitPlan
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
    plan: SplitPlan
    code: Code
    before: Segment = Segment()

    @property
    def result_shape(self) -> tuple[int, int, int]:
        """Shape of what a device returns, `(M, M', D)`, or `(h', w', D)` if uncut."""
        return self.plan.output_shape if self.code.uncut else self.plan.share_shape


def compute(blocks: Segment | CodedStage, frozen: PyTree, x: State) -> State:
    """Computes blocks whole, without a code: `[B, H, W, C] -> [B, M*, M'*, D]`."""
    return blocks.f_conv(_cast(frozen, apart(x)[0].dtype), x)


def enter(stage: CodedStage, frozen: PyTree, x: State) -> tuple[jax.Array, Kept]:
    """Computes the blocks before a coded stage.

    Returns:
      The stage's input `[B, H, W, C]`, and what the client keeps meanwhile: for a
      guided decoder, the same input first.
    """
    x, kept = apart(compute(stage.before, frozen, x))
    return x, (x, *kept) if stage.code.guided else kept


class Small(NamedTuple):
    """Parity results that are the whole features of a stage, made smaller.

    Attributes:
      features: `[r, B, M, M', D]` of the stage, `[r, B, h, w, C]` of the next one.
      arrived: bool `[r, B]` or `[r, 1]`.
    """

    features: jax.Array
    arrived: jax.Array


def small_of(stage: CodedStage, features: jax.Array, available: jax.Array) -> Small:
    """Takes the parity results out of all; arguments as of `reconstruct`."""
    parity = features[stage.plan.k :]
    if stage.code.uncut:
        parity = splitting.cut(stage.plan, parity, [None] * len(parity))
    return Small(parity, available[stage.plan.k :])


def go_on(stage: CodedStage, frozen: PyTree, small: Small | None) -> Small | None:
    """Makes parity pieces of the parity results of the stage before.

    The blocks between the two are computed on them as they are, and a parity device
    goes on with its own small features, of which no decoder has changed anything.

    Args:
      stage: the next one.
      frozen: variables of the base model.
      small: of the stage before; None before the first one.

    Returns:
      None if the stage does not go on; then its parity pieces are made anew.
    """
    if small is None or not stage.code.goes_on:
        return None
    one = lambda x: apart(compute(stage.before, frozen, x))[0]
    pieces = smaller.in_windows(stage.plan, jnp.stack([*map(one, small.features)]))
    return Small(pieces, small.arrived)


def queries(
    stage: CodedStage, params: PyTree, x: jax.Array, small: Small | None = None
) -> jax.Array:
    """Splits and encodes the stage's input.

    Args:
      stage: the coded stage.
      params: of this stage's code.
      x: `[B, H, W, C]`.
      small: of `go_on`.

    Returns:
      `[n, B, h, w, C]`, the query of each device.
    """
    pieces = splitting.split(stage.plan, x)
    sent = stage.code.encode(_cast(params, x.dtype), pieces)
    if small is None:
        return sent
    arrived = small.arrived[..., None, None, None]
    parity = jnp.where(arrived, small.features, sent[stage.plan.k :])
    return jnp.concatenate([sent[: stage.plan.k], parity])


def parity_features(
    stage: CodedStage,
    frozen: PyTree,
    params: PyTree,
    x: jax.Array,
    small: Small | None = None,
) -> jax.Array:
    """Computes the parity results alone, see `coded_features`.

    Only for codes whose first k queries are the data pieces themselves. They are
    computed where the stage's input is.

    Returns:
      `[r, B, M, M', D]`, see `coded_features`.
    """
    parity = queries(stage, params, x, small)[stage.plan.k :]
    outputs = _parity_outputs(stage, frozen, params, parity)
    return _results(stage, outputs, [None] * len(parity))


def data_features(stage: CodedStage, frozen: PyTree, x: jax.Array) -> jax.Array:
    """Computes the results of the data pieces alone, see `coded_features`.

    Returns:
      `[k, B, M, M', D]`, see `coded_features`.
    """
    pieces = splitting.split(stage.plan, x)
    outputs = _on_devices(stage, frozen, pieces)
    return _results(stage, outputs, list(range(stage.plan.k)))


def _results(
    stage: CodedStage, outputs: jax.Array, copies: Sequence[int | None] | None
) -> jax.Array:
    """Cuts the shares out of outputs, see `splitting.cut`, if devices return those."""
    return outputs if stage.code.uncut else splitting.cut(stage.plan, outputs, copies)


def coded_features(
    stage: CodedStage,
    frozen: PyTree,
    params: PyTree,
    x: jax.Array,
    spread: PieceMap = run_locally,
    small: Small | None = None,
) -> jax.Array:
    """Computes the results of all n devices.

    Args:
      stage: the coded stage.
      frozen: variables of the base model.
      params: of this stage's code.
      x: the stage's input `[B, H, W, C]`.
      spread: how the pieces come to their devices.
      small: of `go_on`.

    Returns:
      `[n, B, M, M', D]`, or `[n, B, h', w', D]` of a code that is uncut.
    """
    plan, code = stage.plan, stage.code
    sent = queries(stage, params, x, small)
    if code.parity_worker is None:
        outputs = _on_devices(stage, frozen, sent, spread)
    else:
        data = _on_devices(stage, frozen, sent[: plan.k], spread)
        parity = _parity_outputs(stage, frozen, params, sent[plan.k :])
        outputs = jnp.concatenate([data, parity])
    return _results(stage, outputs, code.quorum.copies)


def reconstruct(
    stage: CodedStage,
    params: PyTree,
    features: jax.Array,
    available: jax.Array,
    x: jax.Array | None = None,
) -> jax.Array:
    """Decodes the stage's output from the results that arrived.

    Of a code that `fills` some lost shares only, the others are as its `decode` leaves
    them; `recover` decodes again.

    Args:
      stage: the coded stage.
      params: of this stage's code.
      features: of `coded_features`; lost slots may hold anything.
      available: bool `[n, B]` or `[n, 1]`.
      x: the stage's input `[B, H, W, C]`, for a guided decoder.

    Returns:
      `[B, M*, M'*, D]`.
    """
    shares = _decoder(stage, params, x)(features, available)
    return splitting.merge(stage.plan, shares)


Decoder = Callable[[jax.Array, jax.Array], jax.Array]
"""`(features, available) -> shares [k, B, M, M', D]`."""


def _decoder(stage: CodedStage, params: PyTree, x: jax.Array | None) -> Decoder:
    """Returns the decoder of a stage; arguments as of `reconstruct`."""

    def decode(features: jax.Array, available: jax.Array) -> jax.Array:
        own = _cast(params, features.dtype)
        guide = (splitting.split(stage.plan, x),) if stage.code.guided else ()  # type: ignore
        return stage.code.decode(own, features, available, *guide)

    return decode


def _decode_all(
    stage: CodedStage, decode: Decoder, features: jax.Array, available: jax.Array
) -> jax.Array:
    """Decodes until no share is missing, what was filled as if it had arrived."""
    k, fills = stage.plan.k, stage.code.fills or stage.plan.k
    returned = available[:k, :, None, None, None]

    def again(shares: jax.Array, arrived: jax.Array) -> jax.Array:
        data = jnp.where(returned, features[:k], _as_results(stage, shares))
        known = jnp.concatenate([data, features[k:]])
        return decode(known, arrived)

    shares = decode(features, available)
    for filled in range(fills, k, fills):
        missing = ~available[:k]
        known = ~missing | (missing.cumsum(axis=0) <= filled)
        arrived = jnp.concatenate([known, available[k:]])
        same = lambda shares, arrived: shares
        shares = jax.lax.cond(jnp.all(known), same, again, shares, arrived)
    return shares


def shares_of(stage: CodedStage, features: jax.Array) -> jax.Array:
    """Returns the shares `[m, B, M, M', D]` of all results or the first ones."""
    return splitting.cut(stage.plan, features) if stage.code.uncut else features


def _as_results(stage: CodedStage, shares: jax.Array) -> jax.Array:
    """Returns shares `[k, B, M, M', D]` as if devices had returned them."""
    if not stage.code.uncut:
        return shares
    merged, plan = splitting.merge(stage.plan, shares), stage.plan
    return jnp.stack([margins.window_of(plan, merged, i) for i in range(plan.k)])


def recover(
    stage: CodedStage,
    params: PyTree,
    features: jax.Array,
    available: jax.Array,
    kept: Kept = (),
) -> State:
    """Reconstructs the output; decodes nothing where a systematic code lost nothing.

    Where more shares are lost than the code `fills` at once, it decodes again.

    Not for training: XLA's CPU backend compiles gradients of its convolutions in a
    conditional to a naive loop.

    Args:
      stage, params, features, available: as of `reconstruct`.
      kept: from `enter`.

    Returns:
      `[B, M*, M'*, D]`, with what later blocks need beside it.
    """
    plan = stage.plan
    x, kept = (kept[0], kept[1:]) if stage.code.guided else (None, kept)
    if stage.code.systematic:
        decode = _decoder(stage, params, x)
        merged = jax.lax.cond(
            jnp.all(available[: plan.k]),
            lambda features: splitting.merge(
                plan, shares_of(stage, features[: plan.k])
            ),
            lambda features: splitting.merge(
                plan, _decode_all(stage, decode, features, available)
            ),
            features,
        )
    else:
        merged = reconstruct(stage, params, features, available, x)
    return together(merged, kept)


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
    if stage.code.parity_worker is None:
        # In training alone: with gradients, a `vmap` is cheaper on accelerators.
        return jax.vmap(lambda piece: compute(stage, frozen, piece))(parity)
    networks = stage.code.parity_worker(params, frozen)

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
