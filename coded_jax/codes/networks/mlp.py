"""Dense networks: those of the paper, Tables I and II, and cheaper decoders."""

from __future__ import annotations

import math

import jax
from flax import linen as nn

from coded_jax.codes.networks.network import Network, NetworkSpec, OnArrays


def _encoder(spec: NetworkSpec) -> OnArrays:
    """Returns two layers over a channel of all pieces, `k*h*w` hidden values wide."""

    def layers(x: jax.Array, outputs: int) -> jax.Array:
        hidden = nn.relu(nn.Dense(spec.width or x.shape[-1])(x))
        return nn.Dense(outputs)(hidden)

    return OnArrays(layers, spec, flat=True)


def _decoder(spec: NetworkSpec) -> OnArrays:
    """Returns three layers over all results, all as wide as the last one."""

    def layers(x: jax.Array, outputs: int) -> jax.Array:
        for _ in range(2):
            x = nn.relu(nn.Dense(spec.width or outputs)(x))
        return nn.Dense(outputs)(x)

    return OnArrays(layers, spec, flat=True)


def _low_rank_decoder(spec: NetworkSpec) -> OnArrays:
    """Returns the decoder with `ceil(sqrt(3 D))` hidden values."""
    rank = math.ceil(math.sqrt(3 * spec.shape.share[-1]))
    return _decoder(spec._replace(width=spec.width or rank))


def _pointwise_decoder(spec: NetworkSpec) -> OnArrays:
    """Returns two layers over the results of each position by itself.

    Their work is `M M' width (n D + k D)` products; a width below D, a quarter of it
    by default, makes them a low-rank mixing of the results.
    """
    width = spec.width or max(1, spec.shape.share[-1] // 4)

    def layers(x: jax.Array, outputs: int) -> jax.Array:
        hidden = nn.relu(nn.Dense(width)(x))
        return nn.Dense(outputs)(hidden)

    return OnArrays(layers, spec)


ENCODER = Network(_encoder)
DECODER = Network(_decoder)
LOW_RANK_DECODER = Network(_low_rank_decoder)
POINTWISE_DECODER = Network(_pointwise_decoder)
