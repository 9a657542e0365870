"""The learned erasure code: an encoder and a decoder network trained together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from coded_jax.checks import require
from coded_jax.codes import margins, smaller
from coded_jax.codes.learned_config import LearnedConfig
from coded_jax.codes.linear import zero_lost
from coded_jax.codes.linear_parts import (
    LINEAR_PARTS,
    LinearPart,
    place_shares,
    shares_of_results,
    with_margins,
)
from coded_jax.codes.networks import DECODERS, ENCODERS
from coded_jax.codes.networks.network import NetworkSpec
from coded_jax.types import Code, CodeShape, PyTree, Traits


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
      those of the linear part of a systematic one, see `linear_parts`.

    Raises:
      ValueError: k or r is 0, or a setting needs a systematic code.
    """
    require("shape", shape, min(shape.k, shape.r) >= 1, "k and r of 1 or more")
    if not config.systematic:
        return _paper_code(shape, config)
    if DECODERS[config.decoder].guided:
        return _guided_code(shape, config)
    return _systematic_code(shape, config)


class _Networks(NamedTuple):
    """Encoder and decoder as Flax modules; None where there is no network."""

    encoder: Any
    decoder: Any

    def init(
        self, key: jax.Array, shape: CodeShape, *of_decoder: jax.Array
    ) -> dict[str, PyTree]:
        """Draws the parameters, of a decoder that reads `of_decoder`."""
        encoder_key, decoder_key = jax.random.split(key)
        params = {}
        if self.encoder is not None:
            pieces = jnp.zeros((shape.k, 1, *shape.piece))
            params["encoder"] = self.encoder.init(encoder_key, pieces)
        if self.decoder is not None:
            params["decoder"] = self.decoder.init(decoder_key, *of_decoder)
        return params


def _networks(shape: CodeShape, config: LearnedConfig) -> _Networks:
    encoder, decoder = ENCODERS[config.encoder], DECODERS[config.decoder]
    joint = config.decoder_channels == "joint"
    of_decoder = NetworkSpec(
        shape,
        config.decoder_width,
        config.decoder_dilations or config.dilations,
        config.kernel,
        joint=decoder.joint if config.decoder_channels is None else joint,
        relu=not config.systematic,
        reads=config.decoder_reads,
    )
    of_encoder = NetworkSpec(
        shape, config.encoder_width, config.dilations, config.kernel
    )
    return _Networks(encoder.build(of_encoder), decoder.build(of_decoder))


def _paper_code(shape: CodeShape, config: LearnedConfig) -> Code:
    """Builds the code whose encoder and decoder are their networks alone."""
    recipe = f"with recipe={config.recipe}"
    for part, registry in (("encoder", ENCODERS), ("decoder", DECODERS)):
        name = getattr(config, part)
        accepted = [x for x in registry if not registry[x].systematic_only]
        require(part, name, name in accepted, f"{accepted} {recipe}")
    pieces, returned = config.parity_pieces, config.returned
    require("parity_pieces", pieces, pieces != "smaller", f"sums {recipe}")
    require("returned", returned, returned == "shares", f"shares {recipe}")
    networks = _networks(shape, config)

    def init(key: jax.Array) -> PyTree:
        return networks.init(key, shape, jnp.zeros((shape.n, 1, *shape.share)))

    def encode(params: PyTree, pieces: jax.Array) -> jax.Array:
        parity = networks.encoder.apply(params["encoder"], pieces)
        return jnp.concatenate([pieces, parity])

    def decode(params: PyTree, features: jax.Array, available: jax.Array) -> jax.Array:
        arrived = zero_lost(features, available)
        return networks.decoder.apply(params["decoder"], arrived)

    return Code(init, encode, decode)


def _systematic_code(shape: CodeShape, config: LearnedConfig) -> Code:
    """Builds the code whose decoder corrects all shares at once, from all results."""
    k, every = shape.k, jnp.arange(shape.k)[:, None]
    networks = _networks(shape, config)
    linear, uncut = _linear_part(shape, config)

    def init(key: jax.Array) -> PyTree:
        features = jnp.zeros((shape.n, 1, *shape.share))
        return linear.init() | networks.init(key, shape, features)

    def decode(params: PyTree, results: jax.Array, available: jax.Array) -> jax.Array:
        results = zero_lost(results, available)
        features = shares_of_results(shape, results)
        arrived = available[:k, :, None, None, None]
        estimate = linear.estimate(params, results, available, every).shares
        filled = decoded = jnp.where(arrived, features[:k], estimate)
        if networks.decoder is not None:
            known = jnp.concatenate([filled, features[k:]])
            decoded += networks.decoder.apply(params["decoder"], known)
        decoded = jax.nn.relu(decoded) if config.nonnegative else decoded
        return jnp.where(arrived, filled, decoded)

    return Code(
        init,
        _systematic_encode(linear, networks.encoder),
        decode,
        systematic=True,
        traits=Traits(nonnegative=config.nonnegative, uncut=uncut),
    )


def _guided_code(shape: CodeShape, config: LearnedConfig) -> Code:
    """Builds a systematic code whose decoder corrects lost shares alone, the first r of
    them, and reads the pieces, too.

    The others are zeros; or, where devices return whole outputs, their estimates: what
    is decoded next takes windows of these for margins.
    """
    k, most = shape.k, min(shape.k, shape.r)
    networks = _networks(shape, config)
    linear, uncut = _linear_part(shape, config)
    signed = (lambda x: jax.nn.relu(x)) if config.nonnegative else (lambda x: x)

    def init(key: jax.Array) -> PyTree:
        height, width, depth = shape.share
        views = jnp.zeros((1, height, width, shape.r * depth))
        sources = jnp.zeros((1, height, width, smaller.pixels_of(shape)))
        state = jnp.zeros((1, k + shape.n))
        return linear.init() | networks.init(key, shape, views, sources, state)

    def decode(
        params: PyTree, results: jax.Array, available: jax.Array, pieces: jax.Array
    ) -> jax.Array:
        results = zero_lost(results, available)
        order = jnp.argsort(available[:k], axis=0, stable=True)  # lost ones first
        lost, others = order[:most], order[most:]
        estimate = linear.estimate(params, results, available, lost)
        sources = margins.take_shares(smaller.sources(shape, pieces), lost)
        # Which share it is and which results arrived, one-hot.
        which = jax.nn.one_hot(lost, k)
        arrived = jnp.broadcast_to(available.T, (*lost.shape, shape.n))
        state = jnp.concatenate([which, arrived.astype(which.dtype)], axis=-1)
        state = jnp.broadcast_to(state, (most, results.shape[1], state.shape[-1]))
        views = jnp.moveaxis(estimate.views, 1, -2)  # [q, B, M, M', r, D]
        views = views.reshape(*views.shape[:-2], -1)
        correction = networks.decoder.apply(
            params["decoder"],
            *(x.reshape(-1, *x.shape[2:]) for x in (views, sources, state)),
        )
        guesses = signed(estimate.shares + correction.reshape(estimate.shares.shape))
        if uncut and most < k:
            rest = linear.estimate(params, results, available, others).shares
            guesses, lost = jnp.concatenate([guesses, signed(rest)]), order
        shares = shares_of_results(shape, results[:k])
        return place_shares(shares, available[:k], guesses, lost)

    return Code(
        init,
        _systematic_encode(linear, networks.encoder),
        decode,
        systematic=True,
        traits=Traits(
            nonnegative=config.nonnegative, guided=True, fills=most, uncut=uncut
        ),
    )


def _linear_part(shape: CodeShape, config: LearnedConfig) -> tuple[LinearPart, bool]:
    """Returns the linear part, and whether devices return whole outputs: if they are
    to, and have more than their share, which networks without padding have not."""
    # Montages are for parity models, beside which a run may have learned codes.
    make = LINEAR_PARTS.get(config.parity_pieces, LINEAR_PARTS["sums"])
    part = make(shape, config)
    uncut = config.returned == "outputs"
    uncut = uncut and smaller.plan_of(shape).output_shape != shape.share
    return (with_margins(shape, part) if uncut else part), uncut


def _systematic_encode(linear: LinearPart, encoder: Any) -> Callable:
    """Returns an encoder whose network is added to the linear part."""

    def encode(params: PyTree, pieces: jax.Array) -> jax.Array:
        parity = linear.parity(params, pieces)
        if encoder is not None:
            parity = encoder.apply(params["encoder"], pieces) + parity
        return jnp.concatenate([pieces, parity])

    return encode
