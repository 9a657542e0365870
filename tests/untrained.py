"""Loaded models that need no training."""

import jax

from coded_jax.inference.pipeline import Examples
from coded_jax.runs import build
from coded_jax.runs.coded_model import CodedModel
from coded_jax.runs.config import Config


def untrained_model(lenet, image_shape=(28, 28, 1), **fields):
    """LeNet-5, or another network, with a code of these settings, all at random."""
    base, frozen = lenet
    config = Config(**fields)
    pipeline = build.build_pipeline(
        config, Examples(image_shape, (0.1,), (0.3,)), 10, base=base
    )
    params = jax.jit(pipeline.init)(jax.random.key(1))
    return CodedModel(pipeline, frozen, params, {})
