"""The pipeline that most tests are about."""

from coded_jax.inference.pipeline import Pipeline
from coded_jax.inference.stages import Coding, Stage


def one_stage(base, plan, code, mean, std, r, mesh=None, dtype="float32"):
    """The paper's coded inference: all blocks of `base` are one stage."""
    stage = Stage(base.f_conv, (1, len(base.blocks)), Coding(plan, code))
    return Pipeline(base, (stage,), mean, std, plan.k, r, mesh, dtype)
