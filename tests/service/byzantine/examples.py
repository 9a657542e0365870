"""A small convolution, images of which a few numbers decide all, and checks of both."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from coded_jax.inference.pipeline import Results
from coded_jax.runs.coded_model import CodedModel
from coded_jax.service.byzantine.calibration import (
    FEWEST,
    calibrate,
    results_of_stage,
)
from coded_jax.splitting import make_plan
from coded_jax.types import BaseModel, CodeShape
from tests.pipelines import one_stage, untrained

SHAPE = (10, 8, 1)


def images(count, seed):
    """Sums of three smooth patterns, float32 `[count, 10, 8, 1]`, and a little noise:
    neighbours say much of each other."""
    rows, columns = np.mgrid[:10, :8] / 4
    patterns = [np.sin(rows + columns), np.cos(2 * rows), np.sin(rows * columns + 1)]
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(count, 3)) @ np.stack(patterns).reshape(3, -1)
    mixed += 0.05 * rng.normal(size=mixed.shape)
    return mixed.reshape(count, *SHAPE).astype(np.float32)


def base(relu):
    """A convolution of 3x3 without padding or bias, perhaps with a ReLU."""

    def block(variables, x):
        numbers = ("NHWC", "HWIO", "NHWC")
        y = jax.lax.conv_general_dilated(
            x, variables, (1, 1), "VALID", dimension_numbers=numbers
        )
        return jax.nn.relu(y) if relu else y

    head = lambda variables, x: x.sum(axis=(1, 2))
    kernel = jax.random.normal(jax.random.key(0), (3, 3, 1, 2))
    return BaseModel(lambda *_: kernel, (block,), head), kernel


def model_of(code, k=2, r=2, relu=False):
    """A model with a code that needs no training."""
    network, kernel = base(relu)
    plan = make_plan(network.f_conv, kernel, SHAPE, (k, 1))
    built = untrained(code, CodeShape.of(plan, r))
    pipeline = one_stage(network, plan, built, None, None, r)
    return CodedModel(pipeline, kernel, ({},))


@functools.cache
def calibrated(code, k=2, r=2, relu=False):
    """A model and its check."""
    model = model_of(code, k, r, relu)
    return model, calibrate(model, images(FEWEST, 1), images(FEWEST, 2))


def results_of(model, count, seed=3):
    """Right results of fresh images."""
    n = model.pipeline.n
    everything = jnp.ones((1, n, count), bool)
    return results_of_stage(
        model.pipeline,
        model.frozen,
        model.params,
        images(count, seed),
        available=everything,
    )


def call(function, model, check, features, arrived=None):
    """`inspect` or `name_culprit` of these results, all or some of them."""
    n = model.pipeline.n
    arrived = jnp.ones(n, bool) if arrived is None else jnp.asarray(arrived)
    own = (check.stages[0], model.params[0], Results(tuple(features)), arrived)
    return function(model.pipeline.stages[0], *own)
