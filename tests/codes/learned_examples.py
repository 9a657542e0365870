"""Learned codes of all networks, in small sizes."""

import functools

import jax
import numpy as np

from coded_jax.codes import no_parity, zero_fill
from coded_jax.types import Code, CodeShape
from tests.pipelines import learned

B = 3
SHAPE = CodeShape(k=2, r=2, piece=(6, 5, 3), share=(2, 3, 4))
SMALL = dict(encoder_width=4, decoder_width=4, dilations=(2,))
LEARNED = {
    "mlp": dict(),
    "mlp, independent": dict(decoder_channels="independent"),
    "conv": dict(encoder="conv", decoder="conv", **SMALL),
    "conv, joint": dict(
        encoder="conv", decoder="conv", decoder_channels="joint", **SMALL
    ),
    "local": dict(encoder="local", decoder="local"),
    "local, independent": dict(
        encoder="local", decoder="local", decoder_channels="independent"
    ),
    "pointwise": dict(encoder="strided", decoder="pointwise"),
    "low rank": dict(encoder="strided", decoder="low_rank"),
}
MLP_AND_CONV = ["mlp", "mlp, independent", "conv", "conv, joint"]
INDEPENDENT = ["mlp, independent", "conv", "local, independent"]


@functools.cache
def make(name: str, systematic: bool = True):
    """A code, jitted, and random parameters for it, biases included."""
    if name == "zero_fill":
        code = zero_fill(SHAPE)
    elif name == "no_parity":
        code = no_parity(SHAPE, learned(SHAPE, systematic=systematic))
    else:
        code = learned(SHAPE, **LEARNED[name], systematic=systematic)
    rng = np.random.default_rng(0)
    random = lambda x: rng.normal(scale=np.prod(x.shape[:-1]) ** -0.5, size=x.shape)
    params = jax.eval_shape(code.init, jax.random.key(0))
    params = jax.tree.map(lambda x: random(x).astype("f"), params)
    return Code(code.init, jax.jit(code.encode), jax.jit(code.decode)), params


def random_pieces() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(SHAPE.k, B, *SHAPE.piece)).astype("f")


def random_features() -> np.ndarray:
    return np.random.default_rng(2).normal(size=(SHAPE.n, B, *SHAPE.share)).astype("f")
