"""Results of coded stages as workers return them, computed here."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from coded_jax.codes import erasures
from coded_jax.inference.pipeline import (
    Pipeline,
    Results,
    classify,
    from_decoder,
    inputs_of,
)
from coded_jax.inference.stages import begin_stage, run_stage, stage_results
from coded_jax.runs.coded_model import CodedModel
from coded_jax.types import PyTree

CHUNK = 500
"""Images that are computed at once."""


@functools.partial(jax.jit, static_argnums=(0, 1))
def results_of_stage(
    pipeline: Pipeline,
    number: int,
    frozen: PyTree,
    params: PyTree,
    images: jax.Array,
    available: jax.Array,
) -> Results:
    """Computes the results of a coded stage.

    Args:
      pipeline: the functions.
      number: of the stage, from 0.
      frozen, params: of the base model and of the codes.
      images: `[B, H, W, C]`.
      available: bool `[S, n, B]`, what arrives in the stages before.
    """
    state = inputs_of(pipeline, images)
    for i, stage in enumerate(pipeline.stages[:number]):
        state = run_stage(stage, frozen, params[i], state, available[i])
    stage, own = pipeline.stages[number], params[number]
    sent = begin_stage(stage, frozen, own, state)
    return Results(stage_results(stage, frozen, own, sent.queries), sent.kept)


@functools.partial(jax.jit, static_argnums=(0, 1))
def answers_from(
    pipeline: Pipeline,
    number: int,
    frozen: PyTree,
    params: PyTree,
    results: Results,
    available: jax.Array,
) -> jax.Array:
    """Goes on from the results of a coded stage to the logits `[B, ..., classes]`.

    Args:
      pipeline, number, frozen, params: as of `results_of_stage`.
      results: of the stage; anything for those that did not arrive.
      available: bool `[S, n, B]`, what arrives in all stages.
    """
    later = pipeline._replace(stages=pipeline.stages[number:])
    state = from_decoder(later, frozen, params[number:], results, available[number:])
    return classify(pipeline, frozen, params, state, available)[1]


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
        yield (
            count,
            results_of_stage(
                pipeline, coded, model.frozen, model.params, part, available=masks
            ),
        )
