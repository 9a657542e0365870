"""Decoders of least squares, for every set of results that may arrive."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coded_jax.codes import LearnedConfig, erasures, least_squares, make_code, views
from coded_jax.types import CodeShape, View, ViewPlan

N, Q, K = 4, 3, 3
RNG = np.random.default_rng(0)
TARGET = RNG.normal(size=(60, Q))
RESULTS = np.stack(
    [TARGET @ RNG.normal(size=(Q, Q)) + RNG.normal(size=(60, Q)) + 1 for _ in range(N)]
)


def plan_of(output=(1, 1, Q), features=(1, 1, Q)):
    view = View(0, 0, 4, 4)
    return ViewPlan((8, 8, 1), (view,) * N, N - K, (4, 4), output, features)


LINEAR = LearnedConfig(decoder="linear")
SHAPE = CodeShape.of(plan_of(), N - K)


def moments_of(results, target):
    x = np.moveaxis(results, 0, 1).reshape(len(target), -1)
    sums = results.sum(axis=1), target.sum(axis=0), x.T @ x, x.T @ target
    return least_squares.Moments(float(len(target)), *sums)


MOMENTS = moments_of(RESULTS, TARGET)


def best_estimate(arrived, ridge, results=RESULTS, target=TARGET):
    """Solves the same problem by its rows: images, and the penalty's squares."""
    x = np.concatenate([results[i] for i in arrived], axis=1)
    every = np.concatenate(list(results), axis=1)
    penalty = ridge * every.var(axis=0).mean() * len(target)
    simple = np.tile(np.eye(Q), (len(arrived), 1)) / len(arrived)
    if results.shape[2] != target.shape[1]:
        simple = np.zeros((x.shape[1], target.shape[1]))
    centred, mean = x - x.mean(axis=0), target.mean(axis=0)
    rows = np.concatenate([centred, np.sqrt(penalty) * np.eye(x.shape[1])])
    wanted = target - mean - centred @ simple
    wanted = np.concatenate([wanted, np.zeros((x.shape[1], target.shape[1]))])
    weights = simple + np.linalg.lstsq(rows, wanted, rcond=None)[0]
    return centred @ weights + mean


def decode(code, params, lost, results=RESULTS):
    available = jnp.asarray(erasures.available(lost, N))
    features = jnp.asarray(results, jnp.float32)[:, :, None, None]
    return np.asarray(code.decode(params, features, available))[0, :, 0, 0]


@pytest.mark.parametrize("lost", erasures.patterns_up_to(N, N - 1))
def test_every_pattern_has_its_own_least_squares(lost):
    code = views.views_code(SHAPE, LINEAR)
    params = code.traits.fit(MOMENTS, 0.1)
    arrived = [i for i in range(N) if i not in lost]
    expected = best_estimate(arrived, 0.1)
    np.testing.assert_allclose(decode(code, params, lost), expected, atol=1e-5)


def test_with_a_large_penalty_it_is_the_mean_of_what_arrived():
    code = views.views_code(SHAPE, LINEAR)
    params = code.traits.fit(MOMENTS, 1e9)
    centred = RESULTS - RESULTS.mean(axis=1, keepdims=True)
    expected = centred[[0, 2, 3]].mean(axis=0) + TARGET.mean(axis=0)
    np.testing.assert_allclose(decode(code, params, (1,)), expected, atol=1e-5)


def test_without_any_result_it_is_the_mean_of_the_targets():
    code = views.views_code(SHAPE, LINEAR)
    params = code.traits.fit(MOMENTS, 0.1)
    expected = np.broadcast_to(TARGET.mean(axis=0), TARGET.shape)
    np.testing.assert_allclose(decode(code, params, range(N)), expected, atol=1e-5)


def test_results_of_another_size_than_the_target_are_estimated_from_zero():
    shape = CodeShape.of(plan_of(features=(2, 1, Q)), N - K)
    target = np.concatenate([TARGET, TARGET**2], axis=1)
    code = views.views_code(shape, LINEAR)
    params = code.traits.fit(moments_of(RESULTS, target), 0.1)
    available = jnp.asarray(erasures.available((3,), N))
    features = jnp.asarray(RESULTS, jnp.float32)[:, :, None, None]
    decoded = code.decode(params, features, available)
    assert decoded.shape == (1, 60, 2, 1, Q)
    expected = best_estimate([0, 1, 2], 0.1, target=target)
    np.testing.assert_allclose(decoded.reshape(60, -1), expected, atol=1e-5)


def test_moments_of_parts_add_up():
    parts = [
        moments_of(RESULTS[:, i : i + 20], TARGET[i : i + 20]) for i in (0, 20, 40)
    ]
    total = parts[0].plus(parts[1]).plus(parts[2])
    for own, whole in zip(total, MOMENTS, strict=True):
        np.testing.assert_allclose(own, whole, rtol=1e-12)


def test_each_image_may_have_lost_others():
    code = views.views_code(SHAPE, LINEAR)
    params = code.traits.fit(MOMENTS, 0.1)
    lost = [(0,), (), (1, 2), (3,), (0, 1, 2)]
    masks = np.concatenate([erasures.available(own, N) for own in lost], axis=1)
    features = jnp.asarray(RESULTS[:, : len(lost)], jnp.float32)[:, :, None, None]
    decoded = jax.jit(code.decode)(params, features, jnp.asarray(masks))
    for i, own in enumerate(lost):
        expected = decode(code, params, own)[i]
        np.testing.assert_allclose(decoded[0, i, 0, 0], expected, atol=1e-5)


@pytest.mark.parametrize("name", ["learned", "no_parity", "mean_of_views"])
def test_what_stands_in_a_lost_slot_has_no_effect(name):
    code = make_code(name, SHAPE, {}, LINEAR)
    fit = code.traits.fit
    params = fit(MOMENTS, 0.1) if fit else {}
    spoilt = RESULTS.copy()
    spoilt[1] = np.nan
    expected = decode(code, params, (1,))
    np.testing.assert_array_equal(decode(code, params, (1,), spoilt), expected)


def test_without_parity_is_the_fit_of_the_data_views_alone():
    code = views.without_parity(SHAPE, LINEAR)
    params = code.traits.fit(MOMENTS, 0.1)
    np.testing.assert_allclose(
        decode(code, params, ()), best_estimate([0, 1, 2], 0.1), atol=1e-5
    )


def test_the_mean_of_views_needs_no_fit():
    code = views.mean_of_views(SHAPE, LINEAR)
    expected = RESULTS[[1, 2, 3]].mean(axis=0)
    np.testing.assert_allclose(decode(code, {}, (0,)), expected, atol=1e-5)


def test_codes_of_exact_pieces_are_refused():
    with pytest.raises(ValueError, match="^code: 'mds' given, one of .* split=views"):
        make_code("mds", SHAPE, {}, LINEAR)
    with pytest.raises(ValueError, match="^code: '.*own' given, one of"):
        make_code(own, SHAPE, {}, LINEAR)


def own(shape):
    return views.views_code(shape, LINEAR)


def test_too_many_numbers_are_refused():
    shape = CodeShape.of(plan_of((9, 9, 512), (9, 9, 512)), N - K)
    with pytest.raises(ValueError, match="^decoder: .* a head that pools"):
        views.views_code(shape, LINEAR)
