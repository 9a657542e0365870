"""Begins decoders with a ridge regression: the last layer is fitted, the rest drawn.

A decoder's last layer is linear in its parameters, so that the change of them which
reconstructs some images best, with a penalty on its size, is known without any step of
training. It is found by conjugate gradients on the normal equations, which need the
decoder as it is and no matrix of its hidden values.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.scipy.sparse.linalg import cg
from jax.typing import ArrayLike

from coded_jax.codes import erasures
from coded_jax.inference.pipeline import Pipeline, inputs_of
from coded_jax.inference.stages import (
    CodedStage,
    begin_stage,
    end_stage,
    stage_results,
    whole_stage,
)
from coded_jax.types import Kept, PyTree, apart

PENALTY = 1e-3
"""Times the squares of the change, beside the squared errors of all features over the
squares of these."""
ITERATIONS = 30


@functools.partial(jax.jit, static_argnames=("pipeline", "seed"))
def with_ridge(
    pipeline: Pipeline, frozen: PyTree, params: PyTree, images: ArrayLike, seed: int
) -> PyTree:
    """Returns parameters of codes whose decoders' last layers are fitted.

    Every stage is given its exact input, and loses up to r results of each image; its
    parity pieces are made of that. Where a decoder ends in a ReLU, it is fitted for the
    features that its first guess has above 0. All is computed in float32.

    Args:
      pipeline: the coded inference.
      frozen: variables of the base model.
      params: of the codes, as drawn.
      images: `[N, H, W, C]`.
      seed: of the losses.

    Raises:
      ValueError: a decoder has no layer with a kernel.
    """
    coding = pipeline.coding._replace(dtype="float32")
    pipeline, key = pipeline._replace(coding=coding), jax.random.key(seed)
    state, fitted = inputs_of(pipeline, images), []
    for i, stage in enumerate(pipeline.stages):
        odds = erasures.odds_of_harmful(pipeline.k, pipeline.n, pipeline.r)
        own_key = jax.random.fold_in(key, i)
        masks = erasures.sample_patterns(own_key, odds, pipeline.n, len(images))
        sent = begin_stage(stage, frozen, params[i], state)
        results = stage_results(stage, frozen, params[i], sent.queries)
        state = whole_stage(stage, frozen, state)
        own = _fit(
            stage,
            params[i],
            results=results,
            available=masks,
            kept=sent.kept,
            target=apart(state)[0],
        )
        fitted.append(own)
    return (*fitted, *params[len(fitted) :])


def _fit(
    stage: CodedStage,
    params: PyTree,
    *,
    results: jax.Array,
    available: jax.Array,
    kept: Kept,
    target: jax.Array,
) -> PyTree:
    """Returns the parameters of a code with the last layer of its decoder fitted."""
    layers = flatten_dict(params["decoder"], keep_empty_nodes=True)
    first = {path: layers[path] for path in last_layer(params["decoder"])}

    def with_last(last: PyTree) -> PyTree:
        return {**params, "decoder": unflatten_dict({**layers, **last})}

    def decode(last: PyTree) -> jax.Array:
        own = with_last(last)
        ended = end_stage(stage, own, results, available, kept, unconditional=True)
        return apart(ended)[0]

    guess, change = jax.linearize(decode, first)
    back = jax.linear_transpose(change, first)
    scale = target.size * jnp.square(target).mean()

    def normal(last: PyTree) -> PyTree:
        (gradient,) = back(change(last))
        return jax.tree.map(lambda g, w: g / scale + PENALTY * w, gradient, last)

    (wanted,) = back((target - guess) / scale)
    best, _ = cg(normal, wanted, maxiter=ITERATIONS)
    return with_last(jax.tree.map(jnp.add, first, best))


def last_layer(variables: PyTree) -> list[tuple[str, ...]]:
    """Returns the paths to a network's last layer, to its kernel and its bias: the one
    named `features`, or else the last one by number.

    Raises:
      ValueError: there is none with a kernel.
    """
    paths = [*flatten_dict(variables)]
    kernels = [path for path in paths if path[-1] == "kernel"]
    order = lambda path: [(name == "features", _number(name)) for name in path[:-1]]
    *layer, _ = max(kernels, key=order)
    return [path for path in paths if [*path[:-1]] == layer]


def _number(name: str) -> int:
    """Returns the number of a layer `Name_2`; -1 without one."""
    digits = name.rpartition("_")[2]
    return int(digits) if digits.isdigit() else -1
