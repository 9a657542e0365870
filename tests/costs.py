"""Costs of the stages of a configured pipeline, for tests."""

import jax

from coded_jax.inference import costs
from coded_jax.runs import build, config


def costs_of(image_shape, **settings):
    """Returns the costs of each stage; nothing is computed."""
    pipeline = build.build_pipeline(
        config.Config(**settings), image_shape, 10, (0.5,), (0.25,)
    )
    variables = jax.eval_shape(
        lambda key: pipeline.base.init(key, image_shape, 10), jax.random.key(0)
    )
    return costs.stage_costs(pipeline, variables, image_shape)
