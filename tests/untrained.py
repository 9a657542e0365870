"""Loaded models that need no training."""

import jax

from coded_jax.runs import build
from coded_jax.runs.coded_model import CodedModel
from coded_jax.runs.config import Config


def untrained_model(lenet, **fields):
    """LeNet-5 with a code of these settings, all parameters at random."""
    base, frozen = lenet
    config = Config(**fields)
    pipeline = build.build_pipeline(config, (28, 28, 1), 10, (0.1,), (0.3,))
    params = jax.jit(pipeline.init)(jax.random.key(1))
    return CodedModel(pipeline, frozen, params, {})
