"""The learned erasure code: an encoder and a decoder network trained together."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from coded_jax.checks import require
from coded_jax.codes.combine import piece_sums
from coded_jax.codes.entry import CodeEntry
from coded_jax.codes.estimate import linear_estimate
from coded_jax.codes.learned_config import LearnedConfig
from coded_jax.codes.linear import zero_lost
from coded_jax.codes.networks import DECODERS, ENCODERS
from coded_jax.codes.networks.network import NetworkSpec
from coded_jax.codes.sums import SUMS
from coded_jax.types import Code, CodeShape, PyTree


def learned_code(shape: CodeShape, config: LearnedConfig) -> Code:
    """Builds the paper's code (section III), or its systematic form.

    The paper's decoder regenerates all shares and ends in a ReLU. A systematic code
    passes shares whose own result arrived through untouched; its encoder's network is
    added to learned sums of the pieces, and its decoder's to the `linear_estimate` of
    the lost shares, which it reads in their place.

    Args:
      shape: the sizes.
      config: the recipe and the networks.

    Returns:
      A code with parameters `{"encoder": ..., "decoder": ...}` of the networks, and
      `"sums"` `[k, r]` of a systematic one.

    Raises:
      ValueError: k or r is 0, or a network needs a systematic code.
    """
    require("shape", shape, min(shape.k, shape.r) >= 1, "k and r of 1 or more")
    encoder, decoder = _encoder(shape, config), _decoder(shape, config)
    if config.systematic:
        code = _systematic_code(shape.k, encoder, decoder, config.nonnegative)
    else:
        code = _paper_code(encoder, decoder)

    def init(key: jax.Array) -> PyTree:
        encoder_key, decoder_key = jax.random.split(key)
        pieces = jnp.zeros((shape.k, 1, *shape.piece))
        results = jnp.zeros((shape.n, 1, *shape.share))
        params: dict[str, PyTree] = {}
        if config.systematic:
            params["sums"] = SUMS[config.sums](shape.k, shape.r)
        if encoder is not None:
            params["encoder"] = encoder.init(encoder_key, pieces)
        if decoder is not None:
            params["decoder"] = decoder.init(decoder_key, results)
        return params

    return code._replace(init=init)


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
        )
    )


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


def _systematic_code(k: int, encoder: Any, decoder: Any, nonnegative: bool) -> Code:
    """Returns encoder and decoder with a linear part; a network may be None."""

    def encode(params: PyTree, pieces: jax.Array) -> jax.Array:
        parity = piece_sums(params["sums"], pieces)
        if encoder is not None:
            parity = encoder.apply(params["encoder"], pieces) + parity
        return jnp.concatenate([pieces, parity])

    def decode(params: PyTree, features: jax.Array, available: jax.Array) -> jax.Array:
        features = zero_lost(features, available)
        arrived = available[:k, :, None, None, None]
        estimate = linear_estimate(params["sums"], features, available)
        filled = decoded = jnp.where(arrived, features[:k], estimate)
        if decoder is not None:
            results = jnp.concatenate([filled, features[k:]])
            decoded += decoder.apply(params["decoder"], results)
        decoded = jax.nn.relu(decoded) if nonnegative else decoded
        return jnp.where(arrived, filled, decoded)

    return Code(_no_init, encode, decode, systematic=True, nonnegative=nonnegative)


ENTRY = CodeEntry(
    lambda shape, variables, config: learned_code(shape, config),
    trained=True,
    label="{recipe} {encoder} / {decoder}",
    title="{recipe} recipe, {encoder} encoder, {decoder} decoder",
)
