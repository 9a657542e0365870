"""The learned erasure code: an encoder and a decoder network trained together."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from coded_jax.codes.linear import zero_lost
from coded_jax.codes.networks.conv import DILATIONS, ConvDecoder, ConvEncoder
from coded_jax.codes.networks.local import LocalDecoder, LocalEncoder
from coded_jax.codes.networks.mlp import MLPDecoder, MLPEncoder
from coded_jax.codes.networks.pointwise import PointwiseDecoder
from coded_jax.codes.networks.strided import StridedEncoder
from coded_jax.types import Code, CodeShape, PyTree

LINEAR = "linear"
ENCODERS = ("mlp", "conv", "strided", "local", LINEAR)
DECODERS = ("mlp", "low_rank", "conv", "local", "pointwise", LINEAR)
DECODER_CHANNELS = ("joint", "independent")


def cosines(k: int, r: int) -> jax.Array:
    """The first r orthonormal vectors `[k, r]` of the discrete cosine transform (II).

    As sums of k pieces they keep the pixels' variance; the first one is the addition
    code of ParM (Kosaian et al. 2019). Those from k on repeat or are zero.
    """
    i, j = jnp.arange(k)[:, None], jnp.arange(r)[None]
    basis = jnp.cos(jnp.pi * j * (2 * i + 1) / (2 * k))
    return basis * jnp.sqrt(jnp.where(j == 0, 1, 2) / k)


def powers(k: int, r: int) -> jax.Array:
    """Columns `i^j` of a Vandermonde matrix, i in `1..k`, of length 1: `[k, r]`.

    The first is that of `cosines`. No weight is negative: a sum of pieces looks more
    like a piece than a difference does, of which a ReLU after a convolution keeps half.
    """
    columns = jnp.arange(1.0, k + 1)[:, None] ** jnp.arange(r)[None]
    return columns / jnp.linalg.norm(columns, axis=0, keepdims=True)


SUMS = {"cosine": cosines, "power": powers}
"""What the learned sums of the pieces are at first."""


def solve_definite(matrix: jax.Array, right: jax.Array) -> jax.Array:
    """`matrix^-1 right` by Gauss-Jordan elimination, in plain array operations.

    An exported file then has no calls of LAPACK, which JAX before 0.10 does not load
    for one: it crashes.

    Args:
      matrix: `[k, k]`, positive definite, so that no pivot is sought; k is small.
      right: `[k, m]`.
    """
    k = len(matrix)
    both = jnp.concatenate([matrix, right], axis=1)
    for i, unit in enumerate(jnp.eye(k)):
        row = both[i] / both[i, i]
        both -= jnp.outer(both[:, i] - unit, row)
    return both[:, k:]


def linear_estimate(
    sums: jax.Array, features: jax.Array, available: jax.Array
) -> jax.Array:
    """The shares by ridge regression on what arrived (Hoerl and Kennard 1970).

    `(G'AG + I)^-1 G'A y` with `G = [I; sums']`, `A` the erasures and `y` the results:
    parity results are taken for the same sums of shares, which holds for a linear
    `F_Conv` alone. So the ridge is large, and the estimate is never exact. From data
    results only, lost shares are estimated as zero.

    Args:
      sums: `[k, r]`, weights of the pieces in each parity piece.
      features: `[n, B, M, M', D]`, zeros where no result arrived.
      available: bool `[n, B]` or `[n, 1]`.

    Returns:
      `[k, B, M, M', D]`; only that of lost shares is of use.
    """
    k = len(sums)
    sums = sums.astype(jnp.float32)  # a linear system is not solved in 16 bits
    generator = jnp.concatenate([jnp.eye(k), sums.T])

    def solve(available: jax.Array) -> jax.Array:
        arrived = generator.T * available[None]
        gram = jnp.matmul(arrived, generator, precision="highest")
        return solve_definite(gram + jnp.eye(k), arrived)

    weights = jax.vmap(solve, 1)(available).astype(features.dtype)
    weights = jnp.broadcast_to(weights, (features.shape[1], *weights.shape[1:]))
    return jnp.einsum("bkn,nbhwd->kbhwd", weights, features)


def learned_code(
    shape: CodeShape,
    *,
    encoder: str = "mlp",
    decoder: str = "mlp",
    encoder_width: int | None = None,
    decoder_width: int | None = None,
    dilations: tuple[int, ...] = DILATIONS,
    decoder_dilations: tuple[int, ...] | None = None,
    kernel: int = 3,
    decoder_channels: str | None = None,
    systematic: bool = True,
    nonnegative: bool = False,
    sums: str = "cosine",
) -> Code:
    """The paper's code (section III), or its systematic form.

    Args:
      shape: the sizes to build for.
      encoder: one of `ENCODERS`; `"linear"`: the sums of the pieces alone.
      decoder: one of `DECODERS`; `"linear"`: the `linear_estimate` alone;
        `"low_rank"`: as `"mlp"`, with `sqrt(3 D)` hidden values if no width is given.
      encoder_width: width of the encoder's hidden layers; if None, its own default.
      decoder_width: width of the decoder's hidden layers, likewise.
      dilations: of the layers of `conv` networks, see `conv.DilatedStack`.
      decoder_dilations: of the decoder's; as the encoder's if None.
      kernel: rows and columns of their kernels, an odd number.
      decoder_channels: `"joint"` or `"independent"`; if None, independent for the
        convolutional decoder and joint for the others.
      systematic: shares whose own result arrived are passed through untouched. The
        encoder's network is added to learned sums of the pieces, and the decoder's to
        the `linear_estimate` of the lost shares, which it is given in their place.
        Otherwise the decoder regenerates all shares and ends in a ReLU, and both are
        their networks alone (the paper).
      nonnegative: whether a systematic decoder ends in a ReLU too, which suits features
        that do.
      sums: one of `SUMS`, for a systematic code.

    Returns:
      A code with parameters `{"encoder": ..., "decoder": ...}` of the networks, and
      `"sums"` `[k, r]` of a systematic one.

    Raises:
      ValueError: an argument is not one of the accepted values.
    """
    if shape.k < 1 or shape.r < 1:
        raise ValueError(f"shape: k={shape.k}, r={shape.r} given, 1 or more accepted")
    for name, value, known in (
        ("encoder", encoder, ENCODERS),
        ("decoder", decoder, DECODERS),
        ("sums", sums, tuple(SUMS)),
    ):
        accepted = [each for each in known if systematic or each != LINEAR]
        if value not in accepted:
            raise ValueError(
                f"{name}: {value!r} given, {accepted} accepted of a code that is "
                f"{'' if systematic else 'not '}systematic"
            )
    if decoder_channels not in (None, *DECODER_CHANNELS):
        raise ValueError(
            f"decoder_channels: {decoder_channels!r} given, "
            f"{list(DECODER_CHANNELS)} accepted"
        )
    joint = decoder_channels == "joint" or (
        decoder_channels is None and decoder != "conv"
    )
    k, r, n = shape.k, shape.r, shape.n
    encoders: dict[str, Callable[[], nn.Module]] = {
        "mlp": lambda: MLPEncoder(r, encoder_width),
        "conv": lambda: ConvEncoder(r, encoder_width, dilations, kernel),
        "strided": lambda: StridedEncoder(r, encoder_width),
        "local": lambda: LocalEncoder(r, encoder_width),
    }
    sizes: dict[str, Any] = {
        "k": k,
        "joint": joint,
        "width": decoder_width,
        "relu": not systematic,
    }
    layers: dict[str, Any] = {
        "dilations": decoder_dilations or dilations,
        "kernel": kernel,
    }
    rank = decoder_width or math.ceil(math.sqrt(3 * shape.share[-1]))
    decoders: dict[str, Callable[[], nn.Module]] = {
        "mlp": lambda: MLPDecoder(**sizes),
        "low_rank": lambda: MLPDecoder(**(sizes | {"width": rank})),
        "conv": lambda: ConvDecoder(**sizes, **layers),
        "local": lambda: LocalDecoder(**sizes),
        "pointwise": lambda: PointwiseDecoder(**sizes),
    }
    encoder_net = encoders[encoder]() if encoder != LINEAR else None
    decoder_net = decoders[decoder]() if decoder != LINEAR else None

    def init(key: jax.Array) -> PyTree:
        encoder_key, decoder_key = jax.random.split(key)
        pieces, results = (k, 1, *shape.piece), (n, 1, *shape.share)
        params: dict[str, PyTree] = {}
        if systematic:
            params["sums"] = SUMS[sums](k, r)
        if encoder_net:
            params["encoder"] = encoder_net.init(encoder_key, jnp.zeros(pieces))
        if decoder_net:
            params["decoder"] = decoder_net.init(decoder_key, jnp.zeros(results))
        return params

    def encode(params: PyTree, pieces: jax.Array) -> jax.Array:
        parity: Any = encoder_net.apply(params["encoder"], pieces) if encoder_net else 0
        if systematic:
            parity = parity + jnp.einsum("kbhwc,kr->rbhwc", pieces, params["sums"])
        return jnp.concatenate([pieces, parity])  # type: ignore

    def decode(params: PyTree, features: jax.Array, available: jax.Array) -> jax.Array:
        features = zero_lost(features, available)
        if not systematic:
            return decoder_net.apply(params["decoder"], features)  # type: ignore
        arrived = available[:k, :, None, None, None]
        estimate = linear_estimate(params["sums"], features, available)
        found = filled = jnp.where(arrived, features[:k], estimate)
        if decoder_net:
            results = jnp.concatenate([filled, features[k:]])
            found += decoder_net.apply(params["decoder"], results)  # type: ignore
        found = jax.nn.relu(found) if nonnegative else found
        return jnp.where(arrived, filled, found)

    return Code(init, encode, decode, systematic)
