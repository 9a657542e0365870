"""The pipeline and the codes that most tests are about."""

import functools

import jax

from coded_jax.codes import LearnedConfig, learned_code, make_code
from coded_jax.inference.pipeline import Coding, Examples, Pipeline, infer, inputs_of
from coded_jax.inference.stages import (
    CodedStage,
    Segment,
    begin_stage,
    end_stage,
    stage_results,
)


def one_stage(base, plan, code, mean, std, r, mesh=None, dtype="float32"):
    """Codes all blocks of `base` as one stage, as the paper does."""
    stage = CodedStage(base.f_conv, (1, len(base.blocks)), plan, code)
    image_shape = (plan.rows.size, plan.columns.size, plan.piece_shape[-1])
    return Pipeline(
        base,
        (stage,),
        Segment(),
        Coding(plan.k, r, dtype=dtype),
        Examples(image_shape, mean, std),
        mesh,
    )


@functools.partial(jax.jit, static_argnums=0)
def plainly(pipeline, frozen, params, images, available):
    """Returns logits, and the features that the one stage reconstructs."""
    (stage,), x = pipeline.stages, inputs_of(pipeline, images)
    sent = begin_stage(stage, frozen, *params, x)
    results = stage_results(stage, frozen, *params, sent.queries)
    merged = end_stage(
        stage, *params, results, available, sent.kept, unconditional=True
    )
    return infer(pipeline, frozen, params, images, available), merged


def learned(shape, systematic=True, **settings):
    """A learned code, systematic unless told otherwise."""
    recipe = "systematic" if systematic else "paper"
    return learned_code(shape, LearnedConfig(recipe=recipe, **settings))


def untrained(name, shape):
    """The code of that name, which needs nothing but its sizes."""
    return make_code(name, shape, {}, LearnedConfig())
