"""Erasure patterns: counts, order, masks, and the distribution of drawn ones."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coded_jax.codes.erasures import (
    available,
    begin_in_stages,
    drawn_in_stages,
    moved_roles,
    odds_of_harmful,
    patterns,
    patterns_up_to,
    sample,
    sample_patterns,
)
from tests.errors import refused


@pytest.mark.parametrize("n", [1, 3, 6])
def test_patterns_are_all_subsets_in_lexical_order(n):
    every = [list(itertools.combinations(range(n), l)) for l in range(n + 1)]
    assert [patterns(n, l) for l in range(n + 1)] == every
    assert patterns_up_to(n, 1) == [(), *every[1]]


@pytest.mark.parametrize("lost", [(), (3, 0), np.array([0, 2]), jnp.array([1])])
def test_available(lost):
    mask = available(lost, 4)
    assert mask.shape == (4, 1) and mask.dtype == bool
    assert [i for i in range(4) if not mask[i, 0]] == sorted(lost)


@pytest.mark.parametrize(
    "lost", [(4,), (-1,), (0, 0), (1.0,), (True,), np.array([True] * 4)]
)
def test_what_is_no_pattern_is_refused(lost):
    with refused("lost"):
        available(lost, 4)


def draw(n, most):
    key, run = jax.random.key(0), jax.jit(sample, static_argnums=(1, 2, 3))
    return np.asarray(run(key, n, most, 20_000))


def assert_uniform(counts):
    """Every count within 5 standard deviations of an equal share."""
    total, p = sum(counts), 1 / len(counts)
    deviation = math.sqrt(total * p * (1 - p))
    assert all(abs(count - total * p) < 5 * deviation for count in counts), counts


@pytest.mark.parametrize("n, most", [(3, 1), (4, 4)])
def test_number_of_lost_results_is_uniform(n, most):
    lost = (~draw(n, most)).sum(0)
    assert set(lost) == set(range(most + 1))
    assert_uniform([(lost == i).sum() for i in range(most + 1)])


def test_every_subset_of_a_size_is_equally_likely():
    mask = draw(5, 3)
    for l in (1, 2, 3):
        counts = dict.fromkeys(itertools.combinations(range(5), l), 0)
        for example in (~mask[:, (~mask).sum(0) == l]).T:
            counts[tuple(example.nonzero()[0].tolist())] += 1
        assert_uniform(list(counts.values()))


def test_every_stage_loses_as_many_drawn_uniformly():
    lost, n, stages, batch = (0, 3), 4, 3, 1200
    rows = np.arange(7, 7 + batch)
    draw = lambda seed, rows: np.asarray(
        drawn_in_stages(jax.random.key(seed), lost, n, stages, rows)
    )
    masks = draw(0, rows)
    assert (masks.shape, masks.dtype) == ((stages, n, batch), bool)
    first = np.broadcast_to(available(lost, n), (n, batch))
    np.testing.assert_array_equal(masks[0], first)
    for stage in masks[1:]:
        drawn, times = np.unique(stage, axis=1, return_counts=True)
        assert drawn.shape[1] == math.comb(n, 2) and ((~drawn).sum(axis=0) == 2).all()
        assert_uniform(times)
    # Stages are independent of each other.
    both = (~masks[1] & ~masks[2]).mean()
    assert both == pytest.approx((2 / n) ** 2, abs=0.03)
    # An image's draws are its own, whatever it is tried with, and the key's.
    np.testing.assert_array_equal(draw(0, rows[5:6]), masks[:, :, 5:6])
    assert not np.array_equal(draw(1, rows), masks)


def test_a_pattern_begins_in_each_stage_as_often():
    lost = ~np.asarray(begin_in_stages(jax.random.key(0), (0, 3), 4, 3, np.arange(900)))
    assert lost.shape == (3, 4, 900) and not lost[:, [1, 2]].any()
    np.testing.assert_array_equal(lost[:, 0], lost[:, 3])
    assert lost[2, 0].all() and (lost[:-1, 0] <= lost[1:, 0]).all()  # it holds on
    assert_uniform(np.bincount(lost[:, 0].sum(axis=0))[1:])


def test_some_harmful_draws_lose_more():
    k, n, most, batch = 2, 5, 2, 8000
    key, draws = jax.random.key(3), "patterns"
    odds = odds_of_harmful(k, n, most, draws, beyond=0.25)
    masks = sample_patterns(key, odds, n, batch)
    lost = ~np.asarray(masks)
    assert lost[:k].any(axis=0).all()
    counts = np.bincount(lost.sum(axis=0), minlength=n + 1) / batch
    assert counts[[0, n]].tolist() == [0, 0]
    np.testing.assert_allclose(counts[3:5], 0.125, atol=0.02)
    within = sample_patterns(key, odds_of_harmful(k, n, most, draws), n, batch)
    shares = np.bincount((~np.asarray(within)).sum(axis=0))[1:3] / batch
    np.testing.assert_allclose(counts[1:3], 0.75 * shares, atol=0.03)


@pytest.mark.parametrize(
    "draws, weights",
    [("counts", {}), ("patterns", {}), ("patterns", {(0, 2): 6, (1,): 0.5})],
)
def test_harmful_draws_lose_a_data_piece(draws, weights):
    k, n, most, batch = 2, 4, 2, 8000
    odds = odds_of_harmful(k, n, most, draws, weights)
    masks = sample_patterns(jax.random.key(3), odds, n, batch)
    drawn, times = np.unique(~np.asarray(masks), axis=1, return_counts=True)
    assert drawn.shape == (n, 7) and drawn[:k].any(axis=0).all()
    if draws == "counts":  # as many of each number, which are two and five patterns
        parts = np.where(drawn.sum(axis=0) == 1, 1 / 2, 1 / 5)
    else:
        parts = [weights.get(tuple(np.flatnonzero(lost)), 1) for lost in drawn.T]
    expected = batch * np.array(parts) / np.sum(parts)
    assert (abs(times - expected) < 5 * np.sqrt(expected)).all()


def test_moved_roles_by_hand():
    # Device 1 is lost in the first stage, and has the parity piece of the second; there
    # device 0 is lost, too, with the data piece 0. In the third it has the last piece.
    arrived = np.array([[1, 0, 1], [0, 1, 1], [1, 1, 1]], bool)[:, :, None]
    pieces = moved_roles(jnp.asarray(arrived))[:, :, 0]
    np.testing.assert_array_equal(pieces, [[1, 0, 1], [0, 1, 1], [1, 1, 1]])
    held = np.broadcast_to(arrived[:1], (3, 3, 1))
    pieces = moved_roles(jnp.asarray(held))[:, :, 0]
    np.testing.assert_array_equal(pieces, [[1, 0, 1], [1, 1, 0], [1, 1, 0]])
