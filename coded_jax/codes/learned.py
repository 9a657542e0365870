"""The learned erasure code: an encoder and a decoder network trained together.

A systematic one has a linear part, which its networks improve on: parity pieces that
are linear in the pieces, and estimates of lost shares from the results of these.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from coded_jax import splitting
from coded_jax.checks import require
from coded_jax.codes import margins, smaller
from coded_jax.codes.erasures import zero_lost
from coded_jax.codes.learned_config import LearnedConfig
from coded_jax.codes.linear import zero_fill
from coded_jax.codes.networks import DECODERS, ENCODERS
from coded_jax.codes.networks.network import NetworkSpec
from coded_jax.codes.sums import SUMS, linear_estimate, piece_sums
from coded_jax.types import Code, CodeFlops, CodeShape, PyTree, Traits


def learned_code(shape: CodeShape, config: LearnedConfig) -> Code:
    """Builds the paper's code (section III), or its systematic form.

    The paper's decoder regenerates all shares and ends in a ReLU. A systematic code
    passes shares whose own result arrived through untouched; its encoder's network is
    added to a linear part, learned sums of the pieces or the whole image made smaller,
    and its decoder's to the estimate of the lost shares that goes with it, which it
    reads in their place.

    Args:
      shape: the sizes.
      config: the recipe and the networks.

    Returns:
      A code with parameters `{"encoder": ..., "decoder": ...}` of the networks, and
      those of the linear part of a systematic one: `"sums"` `[k, r]` or `"taps"`, and
      `"margins"` `[k, M, M']` where devices return whole outputs.

    Raises:
      ValueError: a setting needs a systematic code, or the plan of the split.
    """
    if not config.systematic:
        return _paper_code(shape, config)
    networks, linear = _networks(shape, config), _linear_part(shape, config)
    guided = DECODERS[config.decoder].guided
    make_decoder = _guided_decoder if guided else _joint_decoder
    clip = jax.nn.relu if config.nonnegative else (lambda x: x)

    def encode(params: PyTree, pieces: jax.Array) -> jax.Array:
        parity = linear.parity(params, pieces)
        if "encoder" in networks:
            parity += networks["encoder"].apply(params["encoder"], pieces)
        return jnp.concatenate([pieces, parity])

    return Code(
        lambda key: linear.init() | _draw(key, shape, networks, guided),
        encode,
        make_decoder(shape, linear, networks.get("decoder"), clip),
        systematic=True,
        traits=Traits(
            nonnegative=config.nonnegative,
            guided=guided,
            fills=min(shape.k, shape.r) if guided else None,
            uncut=linear.uncut,
        ),
    )


def _paper_code(shape: CodeShape, config: LearnedConfig) -> Code:
    """Builds the code whose encoder and decoder are their networks alone."""
    accepted = {
        "encoder": [x for x, entry in ENCODERS.items() if not entry.systematic_only],
        "decoder": [x for x, entry in DECODERS.items() if not entry.systematic_only],
        "parity_pieces": ["sums"],
        "returned": ["shares"],
    }
    for name, choices in accepted.items():
        value, wording = getattr(config, name), f"{choices} with recipe={config.recipe}"
        require(name, value, value in choices, wording)
    networks = _networks(shape, config)

    def encode(params: PyTree, pieces: jax.Array) -> jax.Array:
        parity = networks["encoder"].apply(params["encoder"], pieces)
        return jnp.concatenate([pieces, parity])

    def decode(params: PyTree, features: jax.Array, available: jax.Array) -> jax.Array:
        arrived = zero_lost(features, available)
        return networks["decoder"].apply(params["decoder"], arrived)

    return Code(lambda key: _draw(key, shape, networks), encode, decode)


def no_parity(shape: CodeShape, code: Code) -> Code:
    """Returns `code` without its encoder, and its decoder without parity results.

    Its accuracy comes from the redundancy of the images alone: an ablation, from no
    publication. A systematic code's sums stay among the parameters, without any effect.
    """
    is_data = jnp.arange(shape.n)[:, None] < shape.k

    def init(key: jax.Array) -> PyTree:
        return {k: v for k, v in code.init(key).items() if k != "encoder"}

    def decode(
        params: PyTree, features: jax.Array, available: jax.Array, *pieces: jax.Array
    ) -> jax.Array:
        return code.decode(params, features, available & is_data, *pieces)

    # Neither operations nor networks of the mixtures that are left out.
    traits = code.traits._replace(flops=CodeFlops(), parity_worker=None)
    return zero_fill(shape)._replace(
        init=init, decode=decode, systematic=code.systematic, traits=traits
    )


def _networks(shape: CodeShape, config: LearnedConfig) -> dict[str, nn.Module]:
    """Returns encoder and decoder by these names, of those that are networks."""
    encoder, decoder = ENCODERS[config.encoder], DECODERS[config.decoder]
    of_encoder = NetworkSpec(
        shape, shape.r, config.encoder_width, config.dilations, config.kernel
    )
    channels = config.decoder_channels
    of_decoder = NetworkSpec(
        shape,
        shape.k,
        config.decoder_width,
        config.decoder_dilations or config.dilations,
        config.kernel,
        joint=decoder.joint if channels is None else channels == "joint",
        relu=not config.systematic,
        reads=config.decoder_reads,
    )
    built = {"encoder": encoder.build(of_encoder), "decoder": decoder.build(of_decoder)}
    return {name: module for name, module in built.items() if module is not None}


def _draw(
    key: jax.Array,
    shape: CodeShape,
    networks: dict[str, nn.Module],
    guided: bool = False,
) -> dict[str, PyTree]:
    """Draws the parameters of the networks."""
    keys = jax.random.split(key)
    inputs = [jnp.zeros((shape.n, 1, *shape.share))]
    if guided:
        height, width, depth = shape.share
        sizes = shape.r * depth, smaller.pixels_of(shape.known_plan)
        inputs = [jnp.zeros((1, height, width, size)) for size in sizes]
        inputs.append(jnp.zeros((1, shape.k + shape.n)))
    params = {}
    if "encoder" in networks:
        pieces = jnp.zeros((shape.k, 1, *shape.piece))
        params["encoder"] = networks["encoder"].init(keys[0], pieces)
    if "decoder" in networks:
        params["decoder"] = networks["decoder"].init(keys[1], *inputs)
    return params


class _LinearPart(NamedTuple):
    """The linear part of a systematic code.

    Attributes:
      init: `() -> params`, a dict.
      parity: `(params, pieces [k, B, h, w, C]) -> [r, B, h, w, C]`.
      estimate: `(params, results, available, shares) -> (estimates [q, B, M, M', D],
        views [r, q, B, M, M', D])`, of zeros where no result arrived, and of the shares
        with these numbers, int32 `[q, B]` or `[q, 1]`; only that of lost shares is of
        use. A view is what one parity result by itself says of a share, zeros if it did
        not arrive.
      uncut: whether devices return whole outputs.
    """

    init: Callable[[], dict[str, PyTree]]
    parity: Callable[[PyTree, jax.Array], jax.Array]
    estimate: Callable[..., tuple[jax.Array, jax.Array]]
    uncut: bool = False


def _linear_part(shape: CodeShape, config: LearnedConfig) -> _LinearPart:
    # Montages are for parity models, beside which a run may have learned codes.
    is_smaller = config.parity_pieces == "smaller"
    part = _smaller_image(shape) if is_smaller else _sums_of_pieces(shape, config.sums)
    if config.returned == "shares":
        return part
    # Of networks without padding, whole outputs are no more than their share.
    more = shape.known_plan.output_shape != shape.share
    return _with_margins(shape, part) if more else part


def _sums_of_pieces(shape: CodeShape, initial: str) -> _LinearPart:
    """Returns learned sums `{"sums": [k, r]}`, with `linear_estimate`."""

    def estimate(
        params: PyTree, features: jax.Array, available: jax.Array, shares: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        every = linear_estimate(params["sums"], features, available)
        views = features[shape.k :, None]
        views = jnp.broadcast_to(views, (shape.r, len(shares), *every.shape[1:]))
        return margins.take_shares(every, shares), views

    return _LinearPart(
        lambda: {"sums": SUMS[initial](shape.k, shape.r)},
        lambda params, pieces: piece_sums(params["sums"], pieces),
        estimate,
    )


def _smaller_image(shape: CodeShape) -> _LinearPart:
    """Returns the whole image made smaller, learned as `{"taps": ...}`.

    The estimate is the mean of what the parity results that arrived show of a share.
    """
    plan = shape.known_plan

    def estimate(
        params: PyTree, features: jax.Array, available: jax.Array, shares: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        views = smaller.stretched(plan, features[shape.k :], shares)
        arrived = available[shape.k :]
        weights = arrived / jnp.maximum(1, arrived.sum(axis=0, keepdims=True))
        weights = weights[:, None, :, None, None, None].astype(views.dtype)
        return (weights * views).sum(axis=0), views

    return _LinearPart(
        lambda: {"taps": smaller.init(plan, shape.r)},
        lambda params, pieces: smaller.parity(plan, params["taps"], pieces),
        estimate,
    )


def _with_margins(shape: CodeShape, part: _LinearPart) -> _LinearPart:
    """Returns the part for devices that return whole outputs, `[n, B, h', w', D]`: what
    those of other pieces show of a share is blended with its estimate and views."""
    plan, k = shape.known_plan, shape.k

    def estimate(
        params: PyTree, results: jax.Array, available: jax.Array, shares: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        features = splitting.cut(plan, results)
        own, views = part.estimate(params, features, available, shares)
        beside = margins.of_shares(plan, results[:k], available[:k], shares)
        blend = functools.partial(margins.blend, params["margins"], beside, shares)
        return blend(own), blend(views)

    init = lambda: {**part.init(), "margins": margins.init(shape)}
    return part._replace(init=init, estimate=estimate, uncut=True)


def _joint_decoder(
    shape: CodeShape,
    linear: _LinearPart,
    network: nn.Module | None,
    clip: Callable[[jax.Array], jax.Array],
) -> Callable[..., jax.Array]:
    """Returns `decode` that corrects all shares at once, from all results."""
    k, every = shape.k, jnp.arange(shape.k)[:, None]

    def decode(params: PyTree, results: jax.Array, available: jax.Array) -> jax.Array:
        results = zero_lost(results, available)
        features = _shares_of(shape, linear, results)
        arrived = available[:k, :, None, None, None]
        estimate, _ = linear.estimate(params, results, available, every)
        filled = decoded = jnp.where(arrived, features[:k], estimate)
        if network is not None:
            known = jnp.concatenate([filled, features[k:]])
            decoded += network.apply(params["decoder"], known)
        decoded = clip(decoded)
        return jnp.where(arrived, filled, decoded)

    return decode


def _guided_decoder(
    shape: CodeShape,
    linear: _LinearPart,
    network: nn.Module,
    clip: Callable[[jax.Array], jax.Array],
) -> Callable[..., jax.Array]:
    """Returns `decode` that corrects lost shares alone, the first r of them, and reads
    the pieces, too.

    The others are zeros; or, where devices return whole outputs, their estimates: what
    is decoded next takes windows of these for margins.
    """
    k, most, plan = shape.k, min(shape.k, shape.r), shape.known_plan
    rows_of = lambda x: x.reshape((-1, *x.shape[2:]))  # [q, B, ...] to [q * B, ...]

    def decode(
        params: PyTree, results: jax.Array, available: jax.Array, pieces: jax.Array
    ) -> jax.Array:
        results = zero_lost(results, available)
        order = jnp.argsort(available[:k], axis=0, stable=True)  # lost ones first
        lost, others = order[:most], order[most:]
        estimate, views = linear.estimate(params, results, available, lost)
        # Of all parity results at each position, `[q, B, M, M', r D]`.
        views = jnp.moveaxis(views, 0, -2).reshape((*estimate.shape[:-1], -1))
        sources = margins.take_shares(smaller.sources(plan, pieces), lost)
        # Which share it is and which results arrived, one-hot.
        which = jax.nn.one_hot(lost, k)
        arrived = jnp.broadcast_to(available.T, (*lost.shape, shape.n))
        state = jnp.concatenate([which, arrived.astype(which.dtype)], axis=-1)
        state = jnp.broadcast_to(state, (*estimate.shape[:2], k + shape.n))
        inputs = map(rows_of, (views, sources, state))
        correction = network.apply(params["decoder"], *inputs)
        guesses = clip(estimate + correction.reshape(estimate.shape))
        if linear.uncut and most < k:
            rest, _ = linear.estimate(params, results, available, others)
            guesses, lost = jnp.concatenate([guesses, clip(rest)]), order
        shares = _shares_of(shape, linear, results[:k])
        numbers = jnp.arange(k)[:, None]
        for guess, number in zip(guesses, lost, strict=True):
            fills = (numbers == number[None]) & ~available[:k]
            shares = jnp.where(fills[..., None, None, None], guess[None], shares)
        return shares

    return decode


def _shares_of(shape: CodeShape, linear: _LinearPart, results: jax.Array) -> jax.Array:
    return splitting.cut(shape.known_plan, results) if linear.uncut else results
