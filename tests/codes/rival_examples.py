"""Small sizes, pipelines and images for codes that need no training."""

import jax
import numpy as np

from coded_jax.codes.erasures import available
from coded_jax.inference.pipeline import Examples
from coded_jax.runs.build import build_pipeline
from coded_jax.runs.config import Config
from coded_jax.types import CodeShape

B = 3
SHAPE = CodeShape(k=3, r=2, piece=(6, 5, 2), share=(2, 3, 4))
OF_ANY_K = ["mds", "addition"]


def random(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype("f")


def encoded_and_decoded(code, shape, lost, garbage=np.nan):
    """Shares of a network that leaves everything as it is, where some are lost."""
    pieces = random(0, shape.k, B, *SHAPE.share)
    params = code.init(jax.random.key(0))
    results = np.array(code.encode(params, pieces))
    results[list(lost)] = garbage
    return pieces, code.decode(params, results, available(lost, shape.n))


def pipeline_of(base, **settings):
    own = {"dataset": "own", "base_model": "own", "recipe": "systematic"}
    config = Config(**own, **settings)
    return build_pipeline(config, Examples((28, 28, 1), (0.1,), (0.3,)), 10, base=base)


def images_of(count=4):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (count, 28, 28, 1), np.uint8)
