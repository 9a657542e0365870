"""Decoders whose last layer is fitted before they are trained."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coded_jax.codes import erasures
from coded_jax.inference.pipeline import Examples, inputs_of
from coded_jax.inference.stages import (
    begin_stage,
    end_stage,
    stage_results,
    whole_stage,
)
from coded_jax.models.modules import ConvNorm, base_model
from coded_jax.runs.build import build_pipeline
from coded_jax.runs.config import Config
from coded_jax.training import loop, optimizers, ridge, tasks
from coded_jax.training.config import TrainConfig
from coded_jax.types import Dataset, Split
from tests.models.published import random_variables

SHAPE = (8, 8, 1)
CONFIG = Config(
    dataset="own", base_model="own", stages=((1, 1), (2, 2)), recipe="systematic"
)
BASE = base_model([ConvNorm(4), ConvNorm(4)])
IMAGES = np.random.default_rng(0).integers(0, 256, (40, *SHAPE), np.uint8)


@functools.cache
def parts(**changes):
    config = dataclasses.replace(CONFIG, **changes)
    pipeline = build_pipeline(config, Examples(SHAPE, (0.13,), (0.31,)), 10, base=BASE)
    variables = random_variables(pipeline.base, SHAPE)
    return pipeline, variables, jax.jit(pipeline.init)(jax.random.key(0))


def code_task(pipeline, variables, **settings):
    split = Split(IMAGES, np.zeros(len(IMAGES), np.int32))
    dataset = Dataset("own", 10, split, split, split, (0.13,), (0.31,))
    adam = optimizers.adam(1e-3, 0.0)
    return tasks.code_task(pipeline, variables, dataset, adam, TrainConfig(**settings))


SETTINGS = {
    "low_rank": {"decoder": "low_rank"},
    "conv": {"decoder": "conv", "decoder_width": 4, "dilations": (1,)},
    "pointwise": {"decoder": "pointwise", "nonnegative": True},
    "sharpen": {"decoder": "sharpen", "parity_pieces": "smaller"},
}


@functools.partial(jax.jit, static_argnums=0)
def errors_of(pipeline, variables, params):
    """Mean squared errors of both stages, each with its exact input."""
    x, out = inputs_of(pipeline, IMAGES), []
    for i, stage in enumerate(pipeline.stages):
        key = jax.random.fold_in(jax.random.key(3), i)
        odds = erasures.odds_of_harmful(2, 3, 1)
        masks = erasures.sample_patterns(key, odds, 3, len(IMAGES))
        sent = begin_stage(stage, variables, params[i], x)
        results = stage_results(stage, variables, params[i], sent.queries)
        merged = end_stage(
            stage, params[i], results, masks, sent.kept, unconditional=True
        )
        x = whole_stage(stage, variables, x)
        out.append(jnp.square(merged - x).mean())
    return out


@pytest.mark.parametrize("name", ["pointwise", "sharpen"])
def test_fitted_decoders_reconstruct_better(name):
    pipeline, variables, params = parts(encoder="linear", **SETTINGS[name])
    fitted = ridge.with_ridge(pipeline, variables, params, IMAGES, seed=3)
    before, after = (errors_of(pipeline, variables, p) for p in (params, fitted))
    for drawn, better in zip(before, after, strict=True):
        assert better < 0.97 * drawn
    for old, new in zip(params, fitted, strict=True):
        last = ridge.last_layer(old["decoder"])
        assert ridge.last_layer(new["decoder"]) == last
        changed = jax.tree_util.tree_leaves_with_path(
            jax.tree.map(lambda x, y: not jnp.array_equal(x, y), old, new)
        )
        names = {
            tuple(key.key for key in path)[1:-1] for path, differs in changed if differs
        }
        assert names == {path[:-1] for path in last}


def test_the_fit_is_that_of_normal_equations(monkeypatch):
    """With a penalty that is large enough to be noticed in a network this small."""
    monkeypatch.setattr(ridge, "PENALTY", 0.1)
    pipeline, variables, params = parts(encoder="linear", decoder="pointwise")
    fitted = ridge.with_ridge(pipeline, variables, params, IMAGES, seed=3)
    stage, own = pipeline.stages[1], params[1]
    x = whole_stage(pipeline.stages[0], variables, inputs_of(pipeline, IMAGES))
    key = jax.random.fold_in(jax.random.key(3), 1)
    odds = erasures.odds_of_harmful(2, 3, 1)
    masks = erasures.sample_patterns(key, odds, 3, len(IMAGES))
    sent = begin_stage(stage, variables, own, x)
    results = stage_results(stage, variables, own, sent.queries)
    target = whole_stage(stage, variables, x)
    drawn = own["decoder"]["params"]["Dense_1"]

    @jax.jit
    @jax.grad
    def slope(last):
        """That of the objective, which is quadratic in the last layer."""
        decoder = {"params": {**own["decoder"]["params"], "Dense_1": last}}
        changed = {**own, "decoder": decoder}
        merged = end_stage(
            stage, changed, results, masks, sent.kept, unconditional=True
        )
        change = jax.tree.map(lambda a, b: jnp.square(a - b).sum(), last, drawn)
        error = jnp.square(merged - target).sum() / jnp.square(target).sum()
        return error + ridge.PENALTY * sum(jax.tree.leaves(change))

    def steepness(last):
        return np.linalg.norm(np.concatenate([*map(np.ravel, slope(last).values())]))

    assert steepness(fitted[1]["decoder"]["params"]["Dense_1"]) < 0.1 * steepness(drawn)


@pytest.mark.parametrize("seeds", [0, 2])
def test_trainings_begin_with_them(seeds):
    pipeline, variables, _ = parts(encoder="linear", decoder="low_rank")
    task = code_task(pipeline, variables, decoder_start="ridge", batch_size=20)
    key = jax.random.split(jax.random.key(5), seeds) if seeds else jax.random.key(5)
    run = loop._start(task, key, None, None)
    drawn = jax.vmap(pipeline.init)(key) if seeds else pipeline.init(key)
    of_seeds = [jax.tree.map(lambda x, i=i: x[i], drawn) for i in range(seeds)]
    fit = lambda params: ridge.with_ridge(pipeline, variables, params, IMAGES, 0)
    if seeds:
        expected = jax.tree.map(lambda *x: jnp.stack(x), *map(fit, of_seeds))
    else:
        expected = fit(drawn)
    for params in (run.state.params, run.best.params):
        chex.assert_trees_all_close(params, expected, rtol=1e-3, atol=1e-4)
    assert code_task(pipeline, variables).begin is None
