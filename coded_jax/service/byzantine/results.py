"""Results of coded stages as workers return them, computed here."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from coded_jax.codes import erasures
from coded_jax.inference.pipeline import Pipeline, classify, inputs_of
from coded_jax.inference.stages import (
    Small,
    coded_features,
    enter,
    go_on,
    recover,
    small_of,
)
from coded_jax.runs.coded_model import CodedModel
from coded_jax.types import Kept, PyTree, State

CHUNK = 500
"""Images that are computed at once."""


class Results(NamedTuple):
    """The results of a stage for some images.

    Attributes:
      features: `[n, B, ...]`.
      kept: what the client keeps beside the queries.
    """

    features: jax.Array
    kept: Kept


@functools.partial(jax.jit, static_argnums=(0, 1))
def stage_results(
    pipeline: Pipeline,
    coded: int,
    frozen: PyTree,
    params: PyTree,
    images: jax.Array,
    available: jax.Array,
) -> Results:
    """Computes the results of a coded stage.

    Args:
      pipeline: the functions.
      coded: number of the stage, from 0.
      frozen, params: of the base model and of the codes.
      images: `[B, H, W, C]`.
      available: bool `[S, n, B]`, what arrives in the stages before.
    """
    state, small = inputs_of(pipeline, images), None
    for number in range(coded):
        results, small = _run(pipeline, number, frozen, params, state, small)
        state, small = _decode(pipeline, number, params, results, available[number])
    return _run(pipeline, coded, frozen, params, state, small)[0]


@functools.partial(jax.jit, static_argnums=(0, 1))
def answers_from(
    pipeline: Pipeline,
    coded: int,
    frozen: PyTree,
    params: PyTree,
    results: Results,
    available: jax.Array,
) -> jax.Array:
    """Goes on from the results of a coded stage to the logits `[B, ..., classes]`.

    Args:
      pipeline, coded, frozen, params: as of `stage_results`.
      results: of the stage; anything for those that did not arrive.
      available: bool `[S, n, B]`, what arrives in all stages.
    """
    state, small = _decode(pipeline, coded, params, results, available[coded])
    for number in range(coded + 1, len(pipeline.stages)):
        results, small = _run(pipeline, number, frozen, params, state, small)
        state, small = _decode(pipeline, number, params, results, available[number])
    return classify(pipeline, frozen, params, state, available)[1]


def _run(
    pipeline: Pipeline,
    number: int,
    frozen: PyTree,
    params: PyTree,
    state: State,
    small: Small | None,
) -> tuple[Results, Small | None]:
    """Computes the results of a stage from its input."""
    stage = pipeline.stages[number]
    x, kept = enter(stage, frozen, state)
    small = go_on(stage, frozen, small)
    features = coded_features(stage, frozen, params[number], x, small=small)
    return Results(features, kept), small


def _decode(
    pipeline: Pipeline,
    number: int,
    params: PyTree,
    results: Results,
    arrived: jax.Array,
) -> tuple[State, Small]:
    """Decodes a stage."""
    stage, (features, kept) = pipeline.stages[number], results
    state = recover(stage, params[number], features, arrived, kept)
    return state, small_of(stage, features, arrived)


def chunks(
    model: CodedModel, coded: int, images: Any, seed: int
) -> Iterator[tuple[int, Results]]:
    """Yields the size of the next chunk of images, and its results of a stage.

    All chunks have one size; the last one is filled up. For a third of the images and
    more nothing is lost in the stages before, for the others up to r results.
    """
    pipeline, size = model.pipeline, min(CHUNK, len(images))
    for start in range(0, len(images), size):
        part = np.asarray(images[start : start + size])
        count = len(part)
        part = np.concatenate([part, np.repeat(part[-1:], size - count, axis=0)])
        key = jax.random.fold_in(jax.random.key(seed), start)
        draw = lambda key: erasures.sample(key, pipeline.n, pipeline.r, size)
        masks = jax.vmap(draw)(jax.random.split(key, len(pipeline.stages)))
        arguments = (model.frozen, model.params, part, masks)
        yield count, stage_results(pipeline, coded, *arguments)
