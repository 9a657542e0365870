"""The pipeline and the codes that most tests are about."""

from coded_jax.codes import CODES, LearnedConfig, learned_code, make_code
from coded_jax.inference.pipeline import Pipeline
from coded_jax.inference.stages import Coding, Stage


def one_stage(base, plan, code, mean, std, r, mesh=None, dtype="float32"):
    """The paper's coded inference: all blocks of `base` are one stage."""
    stage = Stage(base.f_conv, (1, len(base.blocks)), Coding(plan, code))
    return Pipeline(base, (stage,), mean, std, plan.k, r, mesh, dtype)


def learned(shape, systematic=True, **settings):
    """A learned code, systematic unless told otherwise."""
    recipe = "systematic" if systematic else "paper"
    return learned_code(shape, LearnedConfig(recipe=recipe, **settings))


UNTRAINED = [name for name, entry in CODES.items() if not entry.trained]


def untrained(name, shape):
    """The code of that name, which needs nothing but its sizes."""
    return make_code(name, shape, {}, LearnedConfig())
