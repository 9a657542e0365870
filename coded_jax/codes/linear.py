"""Codes whose encoder and decoder are matrices: exact ones, and the training-free.

A decoder has a matrix for every erasure pattern. They are all made in advance, in
float64, and looked up by the set of results that arrived.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from coded_jax.codes.erasures import Pattern, zero_lost
from coded_jax.codes.quorum import ALL_DATA, ANY_K, one_of_each
from coded_jax.codes.sums import piece_sums, weighted_sums
from coded_jax.types import Code, CodeFlops, CodeShape, PyTree, Quorum, Traits

ROUNDING = 1e-12
"""Coefficients that differ by less from an integer are that integer: what a
pseudo-inverse leaves of a zero is no number to multiply by."""


def _rounded(exact: np.ndarray) -> np.ndarray:
    """Puts integers where only rounding has kept them from being there."""
    nearest = np.round(exact)
    return np.where(abs(exact - nearest) < ROUNDING, nearest, exact)


def sum_flops(rows: np.ndarray) -> int:
    """Counts products and sums of weighted sums, for each value.

    Args:
      rows: weights `[sums, terms]`; those of 0 take no term, those of 1 and -1 no
        product.
    """
    terms = np.count_nonzero(rows, axis=1)
    products = np.count_nonzero((rows != 0) & (abs(rows) != 1), axis=1)
    return int((products + np.maximum(terms - 1, 0)).sum())


def matrix_flops(weights: np.ndarray, lost: Pattern, systematic: bool) -> int:
    """Counts products and sums for each value of a share, decoding one erasure pattern.

    Args:
      weights: `[2^n, k, n]`, that of a pattern at the place `sum(arrived * 2^i)`.
      lost: the pattern.
      systematic: whether shares that arrived are not decoded.
    """
    k, n = weights.shape[1:]
    rows = weights[sum(2**i for i in range(n) if i not in lost)]
    if systematic:
        rows = rows[[i for i in range(k) if i in lost]]
    return sum_flops(rows)


def linear_code(
    shape: CodeShape,
    generator: np.ndarray,
    decoder: Callable[[np.ndarray], np.ndarray],
    quorum: Quorum,
    systematic: bool = False,
) -> Code:
    """Builds a code of a matrix of pieces, and one of results for each pattern.

    Query i is `sum_j generator[i, j] piece_j`, share j `sum_i decoder[j, i] result_i`.

    Args:
      shape: the sizes.
      generator: `[n, k]`.
      decoder: `arrived bool [n] -> [k, n]`; columns of lost results are not looked at.
      quorum: the sets of results that suffice.
      systematic: whether shares whose own result arrived are passed through untouched.
    """

    generator = _rounded(generator)
    # The matrix of an erasure pattern is at the place `sum(arrived * 2^i)`.
    masks = [mask[::-1] for mask in itertools.product((False, True), repeat=shape.n)]
    exact = np.stack([decoder(np.array(mask)) for mask in masks])
    matrices = _rounded(exact).astype(np.float32)

    def encode(params: PyTree, pieces: jax.Array) -> jax.Array:
        queries = []
        for row in generator:  # a copy or a blank piece costs no product
            if not row.any():
                queries.append(jnp.zeros_like(pieces[0]))
            elif np.count_nonzero(row) == 1 and row.max() == 1:
                queries.append(pieces[np.argmax(row)])
            else:
                queries.append(piece_sums(jnp.asarray(row)[:, None], pieces)[0])
        return jnp.stack(queries)

    def decode(params: PyTree, features: jax.Array, available: jax.Array) -> jax.Array:
        features = zero_lost(features, available)
        place = available.T.astype(jnp.int32) @ (2 ** jnp.arange(shape.n))
        weights = jnp.asarray(matrices, features.dtype)[place]
        weights = jnp.broadcast_to(weights, (features.shape[1], *weights.shape[1:]))
        shares = weighted_sums(weights, features)
        if not systematic:
            return shares
        arrived = available[: shape.k, :, None, None, None]
        return jnp.where(arrived, features[: shape.k], shares)

    flops = CodeFlops(
        sum_flops(generator), lambda lost: matrix_flops(matrices, lost, systematic)
    )
    init = lambda key: {}
    return Code(init, encode, decode, systematic, quorum, traits=Traits(flops=flops))


def zero_fill(shape: CodeShape) -> Code:
    """Builds no code: lost shares stay zero, as in the input of the paper's decoder
    (section III-B). The parity pieces are blank, and never sent."""
    blank, as_they_are = np.eye(shape.n, shape.k), np.eye(shape.k, shape.n)
    decoder = lambda arrived: as_they_are
    return linear_code(shape, blank, decoder, ALL_DATA, systematic=True)


def mean_fill(shape: CodeShape) -> Code:
    """Builds no code: a lost share is its mean over the training images.

    Of all constants that has the least squared error.
    """

    def decode(params: PyTree, features: jax.Array, available: jax.Array) -> jax.Array:
        arrived = available[: shape.k, :, None, None, None]
        return jnp.where(arrived, features[: shape.k], params["mean"][:, None])

    return zero_fill(shape)._replace(
        init=lambda key: {"mean": jnp.zeros((shape.k, *shape.share))},
        decode=decode,
        traits=Traits(constants=lambda mean: {"mean": mean}),
    )


def uncoded(shape: CodeShape) -> Code:
    """Builds no code that waits: an image without all data pieces has no answer.

    That counts as a wrong one: distributed inference without redundancy, against which
    coded computation is compared since Lee et al. (2018). The parity pieces are blank,
    and never sent.
    """
    code = zero_fill(shape)
    return code._replace(traits=code.traits._replace(answers_always=False))


def replication(shape: CodeShape) -> Code:
    """Builds copies: query i is piece `i mod k`; a share without a copy stays zero.

    With `n = m k` it survives any m - 1 losses exactly: equal work per device is m
    replicas of a coarser split, equal pieces are `k` of which `r` have a copy. The
    oldest answer to stragglers (Dean and Barroso 2013).
    """
    generator = np.eye(shape.k)[np.arange(shape.n) % shape.k]

    def decoder(arrived: np.ndarray) -> np.ndarray:
        weights = np.zeros((shape.k, shape.n))
        for j in range(shape.k):
            if copies := [i for i in range(j, shape.n, shape.k) if arrived[i]]:
                weights[j, copies[0]] = 1
        return weights

    quorum = one_of_each(shape.k, shape.n)
    return linear_code(shape, generator, decoder, quorum, systematic=True)


def chebyshev(count: int, kind: int) -> np.ndarray:
    """Returns Chebyshev points `[count]`, descending.

    Those of the first kind are `cos((2j+1) pi / 2k)`, those of the second
    `cos(i pi / (n-1))`.
    """
    i = np.arange(count)
    if kind == 1:
        return np.cos((2 * i + 1) * np.pi / (2 * count))
    return np.cos(i * np.pi / max(count - 1, 1))


def mds_generator(k: int, n: int) -> np.ndarray:
    """Returns a systematic Vandermonde generator `[n, k]`, any k rows independent.

    `V (V[:k])^-1`, where row i of V has the Chebyshev polynomials of degree below k at
    the i-th of n Chebyshev points. That is a Vandermonde matrix in a basis which stays
    well-conditioned over the reals.
    """
    # Data pieces get points spread over the whole interval, parity those between.
    points = chebyshev(n, 1)
    data = np.unique(np.round(np.linspace(0, n - 1, k)).astype(int))
    order = [*data, *(i for i in range(n) if i not in data)]
    vandermonde = np.polynomial.chebyshev.chebvander(points[order], k - 1)
    parity = np.linalg.solve(vandermonde[:k].T, vandermonde[k:].T).T
    return np.concatenate([np.eye(k), parity])


def _decoded_by_least_squares(shape: CodeShape, generator: np.ndarray) -> Code:
    """Builds the systematic code with the decoder `pinv(A G)`, A the erasures: exact
    from any k results of a linear `F_Conv`, and of least norm from fewer."""
    decoder = lambda arrived: np.linalg.pinv(generator * arrived[:, None])
    return linear_code(shape, generator, decoder, ANY_K, systematic=True)


def mds(shape: CodeShape) -> Code:
    """Builds a maximum distance separable code of the pieces (Reed and Solomon 1960).

    Exact from any k results where `f_conv` is linear and cuts all pieces alike, as a
    convolution without padding does: CoCoI (2025) codes each such layer by itself.
    """
    return _decoded_by_least_squares(shape, mds_generator(shape.k, shape.n))


def addition(shape: CodeShape) -> Code:
    """Builds ParM's addition code with the frozen `f_conv` itself as parity model.

    Parity j is `sum_i (i + 1)^j piece_i`. The first parity is the plain sum, and any k
    results decode (Kosaian et al. 2019).
    """
    powers = np.arange(1, shape.k + 1.0)[None] ** np.arange(shape.r)[:, None]
    return _decoded_by_least_squares(shape, np.concatenate([np.eye(shape.k), powers]))
