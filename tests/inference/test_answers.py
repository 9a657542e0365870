"""Which of the two tails answers, by the stages that lose a data result."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np

from coded_jax.inference.pipeline import Coding, Pipeline, classify, lost_answers
from coded_jax.inference.stages import Segment
from coded_jax.inference.tails import copy_tail
from coded_jax.types import BaseModel, Traits


def test_the_second_tail_answers_what_lost_data_in_any_stage():
    head = lambda variables, x: x.mean((1, 2)) @ variables["head"]
    base = BaseModel(lambda *_: None, (), head)
    stage = SimpleNamespace(code=SimpleNamespace(traits=Traits()))
    pipeline = Pipeline(base, (stage, stage), Segment(), Coding(2, 1))
    frozen = {"head": jnp.ones((4, 5))}
    decoded = jax.random.uniform(jax.random.key(0), (3, 2, 2, 4))
    copy = copy_tail(pipeline.run_tail, frozen, decoded)
    pipeline = pipeline._replace(tail_copy=copy)
    params = ({}, {}, {"head": jnp.full((4, 5), 20.0)})  # a tenth is added to ones
    available = np.ones((2, 3, 3), bool)  # stages, results, images
    available[1, 0, 1] = False  # the second stage loses a data result of one image
    available[0, 2, 2] = False  # and the first stage the parity result of another
    assert lost_answers(pipeline, available).tolist() == [False, True, False]
    logits = classify(pipeline, frozen, params, decoded, available)[1]
    times = jnp.array([1, 3, 1])[:, None]
    expected = times * head(frozen, decoded)
    np.testing.assert_allclose(logits, expected, rtol=1e-5)
    for i in range(3):  # one mask for all images
        mask = available[:, :, i : i + 1]
        logits = classify(pipeline, frozen, params, decoded, mask)[1]
        np.testing.assert_allclose(logits[i], expected[i], rtol=1e-5)
