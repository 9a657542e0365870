"""Encoders and decoders of the learned code.

A new one is a file with a `Network` and a line below.
"""

from __future__ import annotations

from coded_jax.codes.networks import conv, local, mlp, sharpen, strided
from coded_jax.codes.networks.network import Network

NONE = Network(lambda spec: None, systematic_only=True, has_width=False)
"""No network: the linear part of a systematic code alone."""

ENCODERS: dict[str, Network] = {
    "mlp": mlp.ENCODER,
    "conv": conv.ENCODER,
    "strided": strided.ENCODER,
    "local": local.ENCODER,
    "linear": NONE,
}

DECODERS: dict[str, Network] = {
    "mlp": mlp.DECODER,
    "low_rank": mlp.LOW_RANK_DECODER,
    "conv": conv.DECODER,
    "local": local.DECODER,
    "pointwise": mlp.POINTWISE_DECODER,
    "sharpen": sharpen.DECODER,
    "linear": NONE,
}
