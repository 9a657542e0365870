"""Codes of matrices: exact where the network is linear."""

import itertools

import jax
import numpy as np
import pytest

from coded_jax.codes import linear
from coded_jax.codes.erasures import available, patterns, patterns_up_to
from coded_jax.inference.pipeline import Examples, base_features, infer
from coded_jax.models.modules import ConvNorm, base_model
from coded_jax.runs.build import build_pipeline
from coded_jax.runs.config import Config
from tests.codes.rival_examples import (
    OF_ANY_K,
    SHAPE,
    B,
    encoded_and_decoded,
    images_of,
    pipeline_of,
    random,
)
from tests.models.published import random_variables
from tests.pipelines import untrained


@pytest.mark.parametrize("name", OF_ANY_K)
@pytest.mark.parametrize("k, r", [(2, 1), (4, 2)])
def test_linear_codes_decode_from_any_k_results(name, k, r):
    shape = SHAPE._replace(k=k, r=r)
    code = untrained(name, shape)
    for lost in patterns(k + r, r):
        pieces, shares = encoded_and_decoded(code, shape, lost)
        np.testing.assert_allclose(shares, pieces, atol=1e-4)


def test_any_k_rows_of_an_mds_generator_are_independent():
    generator = linear.mds_generator(5, 12)
    np.testing.assert_array_equal(generator[:5], np.eye(5))  # copies, bit for bit
    chosen = itertools.combinations(range(12), 5)
    assert max(np.linalg.cond(generator[list(rows)]) for rows in chosen) < 2e4


def test_addition_is_a_sum_and_a_weighted_sum():
    pieces = random(0, 3, B, 2, 2, 1)
    first, second = linear.addition(SHAPE).encode({}, pieces)[3:]
    np.testing.assert_allclose(first, pieces.sum(0), rtol=1e-5)
    weighted = pieces[0] + 2 * pieces[1] + 3 * pieces[2]
    np.testing.assert_allclose(second, weighted, rtol=1e-5)


def test_no_answer_whatever_the_network_makes_of_what_is_missing():
    # XLA's CPU backend takes NaN for nothing in a max pooling of this size.
    stages = ((1, 1), (3, 3))
    config = Config(base_model="vgg16", base_width=0.125, code="uncoded", stages=stages)
    pipeline = build_pipeline(
        config, Examples((32, 32, 3), (0.5,) * 3, (0.25,) * 3), 10
    )
    frozen = random_variables(pipeline.base, (32, 32, 3))
    params = pipeline.init(jax.random.key(0))
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
    answer = jax.jit(infer, static_argnums=0)
    for lost in patterns_up_to(3, 3):
        logits = answer(pipeline, frozen, params, images, available(lost, 3))
        isnan = bool(set(lost) & {0, 1})
        np.testing.assert_array_equal(np.isnan(logits), isnan)
    # Lost in the last stage alone, by some of the images.
    masks = np.ones((len(stages), 3, 4), bool)
    masks[-1, 1, 2:] = False
    logits = answer(pipeline, frozen, params, images, masks)
    assert np.isfinite(logits).all(1).tolist() == [True, True, False, False]


def test_coding_each_convolution_of_lenet5_is_exact(lenet):
    """CoCoI's way: bias, ReLU and pooling are computed between the coded stages."""
    base, variables = lenet
    variables = random_variables(base, (28, 28, 1))
    pipe = pipeline_of(base, k=4, r=2, stages=((1, 1), (3, 3)), code="mds")
    run = jax.jit(infer, static_argnums=0)
    x = images_of()
    expected = base.head(variables, base_features(pipe, variables, x))
    for lost in patterns(6, 2):
        logits = run(pipe, variables, ({}, {}), x, available(lost, 6))
        np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-3)


def test_a_copy_is_cut_as_the_piece_that_it_copies():
    """With padding the shares stand at other places in the outputs of other pieces."""
    base = base_model([ConvNorm(3), ConvNorm(4)])
    variables = random_variables(base, (28, 28, 1))
    pipe = pipeline_of(base, k=4, r=4, code="replication")
    assert len(set(pipe.stages[0].plan.rows.cuts)) > 1
    run = jax.jit(infer, static_argnums=0)
    logits = run(pipe, variables, ({},), images_of(), available((1, 3), 8))
    expected = base.head(variables, base_features(pipe, variables, images_of()))
    np.testing.assert_allclose(logits, expected, atol=1e-4)


def test_matrix_of_a_pattern_by_hand():
    weights = np.zeros((8, 2, 3))
    weights[0b110] = [[0.0, -1.0, 2.0], [0.0, 1.0, 0.0]]  # result 0 is lost
    # A product by 2 and a difference; a copy is no operation.
    assert linear.matrix_flops(weights, (0,), systematic=True) == 2
    assert linear.matrix_flops(weights, (0,), systematic=False) == 2
    weights[0b110, 1] = [0.0, 0.5, 0.0]
    assert linear.matrix_flops(weights, (0,), systematic=False) == 3
    weights[0b101] = [[1.0, 0.0, 0.0], [0.0, 0.0, 0.5]]  # result 1 is lost
    assert linear.matrix_flops(weights, (1,), systematic=True) == 1
