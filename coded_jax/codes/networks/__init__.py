"""Encoders and decoders of the learned code.

A new one is a file with a `Network` and a line below.
"""

from coded_jax.codes.networks import conv, mlp, sharpen
from coded_jax.codes.networks.network import Network

NONE = Network(lambda spec: None, systematic_only=True, has_width=False)
"""No network: the linear part of a systematic code alone."""

ENCODERS: dict[str, Network] = {
    "mlp": mlp.ENCODER,
    "conv": conv.CONV,
    "strided": conv.STRIDED,
    "local": conv.LOCAL,
    "linear": NONE,
}

DECODERS: dict[str, Network] = {
    "mlp": mlp.DECODER,
    "low_rank": mlp.LOW_RANK_DECODER,
    "conv": conv.CONV,
    "local": conv.LOCAL,
    "pointwise": mlp.POINTWISE_DECODER,
    "sharpen": sharpen.DECODER,
    "linear": NONE,
}
