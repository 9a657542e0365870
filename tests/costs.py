"""Costs of the stages of a configured pipeline, for tests."""

import jax

from coded_jax.inference import costs
from coded_jax.inference.pipeline import Examples
from coded_jax.runs import build, config


def costs_of(image_shape, **settings):
    """Returns the costs of each stage; nothing is computed."""
    return costs.stage_costs(*_pipeline(image_shape, settings), image_shape)


def cost_of(image_shape, **settings):
    """Returns the cost record of the whole."""
    return costs.cost_of(*_pipeline(image_shape, settings), image_shape)


def _pipeline(image_shape, settings):
    pipeline = build.build_pipeline(
        config.Config(**settings), Examples(image_shape, (0.5,), (0.25,)), 10
    )
    variables = jax.eval_shape(
        lambda key: pipeline.base.init(key, image_shape, 10), jax.random.key(0)
    )
    return pipeline, variables
