"""The learned erasure code: an encoder and a decoder network trained together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from coded_jax.checks import require
from coded_jax.codes import smaller
from coded_jax.codes.entry import CodeEntry
from coded_jax.codes.learned_config import LearnedConfig
from coded_jax.codes.linear import zero_lost
from coded_jax.codes.linear_parts import (
    LINEAR_PARTS,
    LinearPart,
    place_shares,
    shares_of_results,
    take_shares,
    with_margins,
)
from coded_jax.codes.networks import DECODERS, ENCODERS
from coded_jax.codes.networks.network import NetworkSpec
from coded_jax.types import Code, CodeShape, PyTree


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
      ValueError: k or r is 0, or a network needs a systematic code.
    """
    require("shape", shape, min(shape.k, shape.r) >= 1, "k and r of 1 or more")
    encoder, decoder = _encoder(shape, config), _decoder(shape, config)
    uncut = returns_outputs(shape, config)
    linear = _linear_part(shape, config, uncut)
    guided = DECODERS[config.decoder].guided  # type: ignore
    networks = (encoder, decoder, config.nonnegative)
    if not config.systematic:
        code = _paper_code(encoder, decoder)
    elif guided:
        code = _guided_code(linear, shape, *networks, uncut)
    else:
        code = _systematic_code(linear, shape, *networks)
    code = code._replace(uncut=uncut)

    def init(key: jax.Array) -> PyTree:
        encoder_key, decoder_key = jax.random.split(key)
        pieces = jnp.zeros((shape.k, 1, *shape.piece))
        params = linear.init() if config.systematic else {}
        if encoder is not None:
            params["encoder"] = encoder.init(encoder_key, pieces)
        if decoder is not None:
            inputs = _decoder_inputs(shape, guided)
            params["decoder"] = decoder.init(decoder_key, *inputs)
        return params

    return code._replace(init=init)


def returns_outputs(shape: CodeShape, config: LearnedConfig) -> bool:
    """Returns whether devices return whole outputs: if they are to, and have more than
    their share, which those of networks without padding have not."""
    if config.returned == "shares":
        return False
    fits = config.systematic
    require("returned", config.returned, fits, f"shares with recipe={config.recipe}")
    return smaller.plan_of(shape).output_shape != shape.share


def _decoder_inputs(shape: CodeShape, guided: bool) -> tuple[jax.Array, ...]:
    """Returns inputs of a decoder's module, of one image."""
    if not guided:
        return (jnp.zeros((shape.n, 1, *shape.share)),)
    height, width, depth = shape.share
    pixels = smaller.pixels_of(shape)
    return (
        jnp.zeros((1, height, width, shape.r * depth)),
        jnp.zeros((1, height, width, pixels)),
        jnp.zeros((1, shape.k + shape.n)),
    )


def _encoder(shape: CodeShape, config: LearnedConfig) -> nn.Module | None:
    name = _require_fitting(config, "encoder")
    return ENCODERS[name].build(
        NetworkSpec(shape, config.encoder_width, config.dilations, config.kernel)
    )


def _decoder(shape: CodeShape, config: LearnedConfig) -> nn.Module | None:
    network = DECODERS[_require_fitting(config, "decoder")]
    joint = config.decoder_channels == "joint"
    return network.build(
        NetworkSpec(
            shape,
            config.decoder_width,
            config.decoder_dilations or config.dilations,
            config.kernel,
            joint=network.joint if config.decoder_channels is None else joint,
            relu=not config.systematic,
            reads=config.decoder_reads,
        )
    )


def _linear_part(shape: CodeShape, config: LearnedConfig, uncut: bool) -> LinearPart:
    name = config.parity_pieces
    fits = config.systematic or name != "smaller"
    require("parity_pieces", name, fits, f"sums with recipe={config.recipe}")
    # Montages are for parity models, beside which a run may have learned codes.
    part = LINEAR_PARTS.get(name, LINEAR_PARTS["sums"])(shape, config)
    return with_margins(shape, part) if uncut else part


def _require_fitting(config: LearnedConfig, part: str) -> str:
    """Returns the name of the encoder or decoder, unless the recipe rules it out."""
    networks = ENCODERS if part == "encoder" else DECODERS
    name = getattr(config, part)
    accepted = [
        other
        for other, network in networks.items()
        if config.systematic or not network.systematic_only
    ]
    recipe = f"{accepted} with recipe={config.recipe}"
    require(part, name, name in accepted, recipe)
    return name


def _no_init(key: jax.Array) -> PyTree:
    return {}


def _paper_code(encoder: Any, decoder: Any) -> Code:
    """Returns encoder and decoder that are their networks alone."""

    def encode(params: PyTree, pieces: jax.Array) -> jax.Array:
        return jnp.concatenate([pieces, encoder.apply(params["encoder"], pieces)])

    def decode(params: PyTree, features: jax.Array, available: jax.Array) -> jax.Array:
        return decoder.apply(params["decoder"], zero_lost(features, available))

    return Code(_no_init, encode, decode)


def _systematic_code(
    linear: LinearPart, shape: CodeShape, encoder: Any, decoder: Any, nonnegative: bool
) -> Code:
    """Returns encoder and decoder with a linear part; a network may be None."""
    k, all_shares = shape.k, jnp.arange(shape.k)[:, None]

    def decode(params: PyTree, results: jax.Array, available: jax.Array) -> jax.Array:
        results = zero_lost(results, available)
        features = shares_of_results(shape, results)
        arrived = available[:k, :, None, None, None]
        estimate = linear.estimate(params, results, available, all_shares).shares
        filled = decoded = jnp.where(arrived, features[:k], estimate)
        if decoder is not None:
            known = jnp.concatenate([filled, features[k:]])
            decoded += decoder.apply(params["decoder"], known)
        decoded = jax.nn.relu(decoded) if nonnegative else decoded
        return jnp.where(arrived, filled, decoded)

    encode = _systematic_encode(linear, encoder)
    return Code(_no_init, encode, decode, systematic=True, nonnegative=nonnegative)


def _systematic_encode(linear: LinearPart, encoder: Any) -> Callable:
    """Returns an encoder whose network is added to the linear part."""

    def encode(params: PyTree, pieces: jax.Array) -> jax.Array:
        parity = linear.parity(params, pieces)
        if encoder is not None:
            parity = encoder.apply(params["encoder"], pieces) + parity
        return jnp.concatenate([pieces, parity])

    return encode


def _guided_code(
    linear: LinearPart,
    shape: CodeShape,
    encoder: Any,
    decoder: Any,
    nonnegative: bool,
    uncut: bool,
) -> Code:
    """Returns a systematic code whose decoder corrects lost shares alone, the first r
    of them, and reads the pieces, too.

    The others are zeros; or, where devices return whole outputs, their estimates: what
    is decoded next takes windows of these for margins.
    """
    k, most = shape.k, min(shape.k, shape.r)

    def decode(
        params: PyTree, results: jax.Array, available: jax.Array, pieces: jax.Array
    ) -> jax.Array:
        results = zero_lost(results, available)
        order = jnp.argsort(available[:k], axis=0, stable=True)  # lost ones first
        lost, others = order[:most], order[most:]
        estimate = linear.estimate(params, results, available, lost)
        sources = take_shares(smaller.sources(shape, pieces), lost)
        state = _state(k, lost, available)
        batch = results.shape[1]
        state = jnp.broadcast_to(state, (most, batch, state.shape[-1]))
        views = jnp.moveaxis(estimate.views, 1, -2)  # [q, B, M, M', r, D]
        views = views.reshape(*views.shape[:-2], -1)
        together = lambda x: x.reshape(-1, *x.shape[2:])
        inputs = map(together, (views, sources, state))
        correction = decoder.apply(params["decoder"], *inputs)
        guess = estimate.shares + correction.reshape(estimate.shares.shape)
        guess = jax.nn.relu(guess) if nonnegative else guess
        shares = shares_of_results(shape, results[:k])
        if uncut and most < k:
            rest = linear.estimate(params, results, available, others).shares
            rest = jax.nn.relu(rest) if nonnegative else rest
            guess, lost = jnp.concatenate([guess, rest]), order
        return place_shares(shares, available[:k], guess, lost)

    encode = _systematic_encode(linear, encoder)
    options = {"nonnegative": nonnegative, "guided": True, "fills": most}
    return Code(_no_init, encode, decode, systematic=True, **options)


def _state(k: int, lost: jax.Array, available: jax.Array) -> jax.Array:
    """Returns the lost share and the results that arrived, one-hot: `[q, B, k + n]`."""
    which = jax.nn.one_hot(lost, k)
    arrived = jnp.broadcast_to(available.T, (*lost.shape, len(available)))
    return jnp.concatenate([which, arrived.astype(which.dtype)], axis=-1)


ENTRY = CodeEntry(
    lambda shape, variables, config: learned_code(shape, config),
    trained=True,
    label="{recipe} {encoder} / {decoder}",
    title="{recipe} recipe, {encoder} encoder, {decoder} decoder",
    meaning="parity pieces and what decodes them, both trained",
)
