"""Codes of one round: a decoder that makes the features of the whole image of views.

Nothing is encoded. All results count, and any of them make an answer: of each set that
may arrive the decoder has a linear estimate, see `least_squares`.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from coded_jax.checks import require
from coded_jax.codes import least_squares
from coded_jax.codes.erasures import zero_lost
from coded_jax.types import Code, CodeShape, PyTree, Traits, ViewPlan

MOST_NUMBERS = 2**28
"""Of the estimates of all sets of results, 1 GiB of float32."""


def views_code(shape: CodeShape) -> Code:
    """Builds the code of views whose decoder is fitted by least squares.

    Args:
      shape: the sizes, with a `ViewPlan`.

    Returns:
      A code with parameters `{"weights": [2^n, n Q, P], "bias": [2^n, P]}`, with Q
      values of a result and P features of the whole image; zeros until they are fitted.

    Raises:
      ValueError: the estimates would take more than 1 GiB.
    """
    plan = _plan_of(shape)
    values, outputs = math.prod(plan.output_shape), math.prod(plan.features_shape)
    sizes = (2**shape.n, shape.n * values, outputs)
    accepted = f"{MOST_NUMBERS} or fewer: a head that pools, larger strides or fewer"
    numbers = f"{math.prod(sizes)} numbers for {shape.n} views of {values} values"
    require("decoder", numbers, math.prod(sizes) <= MOST_NUMBERS, f"{accepted} views")

    def init(key: jax.Array) -> PyTree:
        return {"weights": jnp.zeros(sizes), "bias": jnp.zeros((sizes[0], outputs))}

    def decode(params: PyTree, features: jax.Array, available: jax.Array) -> jax.Array:
        arrived = zero_lost(features, available)
        x = jnp.moveaxis(arrived, 0, 1).reshape(arrived.shape[1], -1)
        places = (2 ** jnp.arange(shape.n)) @ available.astype(jnp.int32)

        def estimate(x: jax.Array, place: jax.Array) -> jax.Array:
            weighed = x @ params["weights"][place]
            return weighed + jnp.broadcast_to(params["bias"][place], weighed.shape)

        if len(places) == 1:
            decoded = estimate(x, places[0])
        else:  # one by one: each may need another matrix
            decoded = jax.lax.map(lambda pair: estimate(*pair), (x, places))
        return decoded.reshape(1, len(x), *plan.features_shape)

    def fit(moments: least_squares.Moments, ridge: float) -> PyTree:
        estimates = least_squares.solve(moments, ridge)
        return jax.tree.map(jnp.asarray, estimates._asdict())

    return Code(init, _as_they_are, decode, traits=Traits(fit=fit))


def without_parity(shape: CodeShape) -> Code:
    """Builds `views_code` whose decoder never has the results of the parity views: the
    same fit, with these r withheld."""
    code, is_data = views_code(shape), jnp.arange(shape.n)[:, None] < shape.k

    def decode(params: PyTree, features: jax.Array, available: jax.Array) -> jax.Array:
        return code.decode(params, features, available & is_data)

    return code._replace(decode=decode)


def mean_of_views(shape: CodeShape) -> Code:
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
