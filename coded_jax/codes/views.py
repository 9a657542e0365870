"""Codes of one round: a decoder that makes the features of the whole image of views.

Nothing is encoded. All results count, and any of them make an answer: of each set that
may arrive the decoder has a linear estimate, see `least_squares`, in all features or in
few directions of them (`low_rank`); a network may correct it (`mlp`).
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from coded_jax.checks import require
from coded_jax.codes import least_squares
from coded_jax.codes.erasures import zero_lost
from coded_jax.codes.learned_config import LearnedConfig
from coded_jax.types import Code, CodeShape, PyTree, Traits, ViewPlan

MOST_NUMBERS = 2**28
"""Of the estimates of all sets of results, 1 GiB of float32."""

DECODERS = {"linear": 0, "low_rank": 32, "mlp": 512}
"""Decoders of views, and their widths where none is set: directions of the features,
or hidden values."""

NETWORK = "network"
"""The parameters of a code of views that are trained by steps, if there are any."""


class Correction(nn.Module):
    """Two dense layers `[B, n Q + n] -> [B, P]`, which are 0 at first.

    Attributes:
      width: hidden values, with a ReLU.
      outputs: P.
    """

    width: int
    outputs: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        hidden = nn.relu(nn.Dense(self.width)(x))
        return nn.Dense(self.outputs, kernel_init=nn.initializers.zeros)(hidden)


def views_code(shape: CodeShape, config: LearnedConfig) -> Code:
    """Builds the code of views whose decoder is fitted by least squares.

    Args:
      shape: the sizes, with a `ViewPlan`.
      config: of which `decoder`, one of `DECODERS`, and `decoder_width` count.

    Returns:
      A code with parameters `{"weights": [2^n, n Q, q], "bias": [2^n, P]}`, with Q
      values of a result and P features of the whole image; zeros until they are fitted.
      Of low rank there is a `"basis"` `[q, P]`, else q = P; of a network `"network"`,
      and `"means"` `[n Q]` and `"scales"` `[n Q]` of the results.

    Raises:
      ValueError: there is no such decoder, or the estimates would take more than 1 GiB.
    """
    plan, decoder = _plan_of(shape), config.decoder or "linear"
    require("decoder", decoder, decoder in DECODERS, f"one of {[*DECODERS]} with views")
    width = config.decoder_width or DECODERS[decoder]
    n, values = shape.n, math.prod(plan.output_shape)
    outputs = math.prod(plan.features_shape)
    rank = min(width, outputs) if decoder == "low_rank" else outputs
    sizes = (2**n, n * values, rank)
    accepted = f"{MOST_NUMBERS} or fewer: low_rank, a head that pools or fewer views"
    numbers = f"{math.prod(sizes)} numbers for {n} views of {values} values"
    require("decoder", numbers, math.prod(sizes) <= MOST_NUMBERS, accepted)
    network = Correction(width, outputs) if decoder == "mlp" else None

    def init(key: jax.Array) -> PyTree:
        params = {"weights": jnp.zeros(sizes), "bias": jnp.zeros((2**n, outputs))}
        if decoder == "low_rank":
            params["basis"] = jnp.zeros((rank, outputs))
        if network is not None:
            ones = jnp.ones(n * values)
            params |= {"means": 0 * ones, "scales": ones}
            params[NETWORK] = network.init(key, jnp.zeros((1, n * values + n)))
        return params

    def decode(params: PyTree, features: jax.Array, available: jax.Array) -> jax.Array:
        arrived = zero_lost(features, available)
        x = jnp.moveaxis(arrived, 0, 1).reshape(arrived.shape[1], -1)
        places = (2 ** jnp.arange(n)) @ available.astype(jnp.int32)

        def estimate(x: jax.Array, place: jax.Array) -> jax.Array:
            y = x @ params["weights"][place]
            y = y @ params["basis"] if "basis" in params else y
            return y + jnp.broadcast_to(params["bias"][place], y.shape)

        if len(places) == 1:
            decoded = estimate(x, places[0])
        else:  # one by one: each may need another matrix
            decoded = jax.lax.map(lambda pair: estimate(*pair), (x, places))
        if network is not None:
            mask = jnp.broadcast_to(available.T, (len(x), n))
            known = jnp.repeat(mask, values, axis=1)
            x = jnp.where(
                known, (x - params["means"][None]) / params["scales"][None], 0
            )
            inputs = jnp.concatenate([x, mask.astype(x.dtype)], axis=1)
            decoded += network.apply(params[NETWORK], inputs)
        return decoded.reshape(1, len(x), *plan.features_shape)

    def fit(moments: least_squares.Moments, ridge: float) -> PyTree:
        weights, bias = least_squares.solve(moments, ridge)
        params = {"weights": weights, "bias": bias}
        if decoder == "low_rank":
            basis = least_squares.directions(moments, weights[-1], rank)
            params["weights"], params["basis"] = weights @ basis.T, basis
        if network is not None:
            centred = moments.centred
            spread = np.sqrt(np.maximum(np.diag(centred.gram), 0))
            params["means"] = centred.results.reshape(-1)
            params["scales"] = spread + spread.mean() / 1000 + 1e-6
        return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params)

    return Code(init, _as_they_are, decode, traits=Traits(fit=fit))


def without_parity(shape: CodeShape, config: LearnedConfig) -> Code:
    """Builds `views_code` whose decoder never has the results of the parity views: the
    same fit, with these r withheld."""
    code = views_code(shape, config)
    is_data = jnp.arange(shape.n)[:, None] < shape.k

    def decode(params: PyTree, features: jax.Array, available: jax.Array) -> jax.Array:
        return code.decode(params, features, available & is_data)

    return code._replace(decode=decode)


def mean_of_views(shape: CodeShape, config: LearnedConfig) -> Code:
    """Builds the code of views without a training: the mean of what arrived.

    Raises:
      ValueError: a result has not the shape of the features of the whole image.
    """
    plan = _plan_of(shape)
    fits = plan.output_shape == plan.features_shape
    accepted = f"{list(plan.features_shape)}, as of a head that pools,"
    require("code: features of a view", list(plan.output_shape), fits, accepted)

    def decode(params: PyTree, features: jax.Array, available: jax.Array) -> jax.Array:
        total = zero_lost(features, available).sum(axis=0, keepdims=True)
        count = jnp.maximum(1, available.sum(axis=0)).astype(features.dtype)
        return total / count[None, :, None, None, None]

    return Code(lambda key: {}, _as_they_are, decode)


def _plan_of(shape: CodeShape) -> ViewPlan:
    plan = shape.plan
    accepted = "that of views, with split=views,"
    if not isinstance(plan, ViewPlan):
        raise ValueError(
            f"shape.plan: {type(plan).__name__} given, {accepted} accepted"
        )
    return plan


def _as_they_are(params: PyTree, views: jax.Array) -> jax.Array:
    return views
