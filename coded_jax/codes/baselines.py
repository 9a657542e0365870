"""Baselines that know the images: a decoder without parity, the mean of features.

Codes without any parameters to learn are in `linear` and `curves`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from coded_jax.codes.linear import zero_lost
from coded_jax.codes.quorum import ALL_DATA
from coded_jax.types import Code, CodeFlops, CodeShape, PyTree, Traits


def _blank_parity(pieces: jax.Array, r: int) -> jax.Array:
    return jnp.concatenate([pieces, jnp.zeros((r, *pieces.shape[1:]), pieces.dtype)])


def mean_fill(shape: CodeShape) -> Code:
    """Builds no code: a lost share is its mean over the training images.

    Of all constants that has the least squared error. The parity pieces are blank, and
    never sent.
    """

    def decode(params: PyTree, features: jax.Array, available: jax.Array) -> jax.Array:
        data = zero_lost(features, available)[: shape.k]
        arrived = available[: shape.k, :, None, None, None]
        return jnp.where(arrived, data, params["mean"][:, None])

    return Code(
        init=lambda key: {"mean": jnp.zeros((shape.k, *shape.share))},
        encode=lambda params, pieces: _blank_parity(pieces, shape.r),
        decode=decode,
        systematic=True,
        quorum=ALL_DATA,
        traits=Traits(constants=lambda mean: {"mean": mean}),
    )


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

    def encode(params: PyTree, pieces: jax.Array) -> jax.Array:
        return _blank_parity(pieces, shape.r)

    return Code(
        init,
        encode,
        decode,
        code.systematic,
        ALL_DATA,
        # Neither operations nor networks of the mixtures that are left out.
        traits=code.traits._replace(flops=CodeFlops(), parity_worker=None),
    )
