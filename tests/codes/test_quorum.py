"""The sets of results that suffice: by hand, for all sets, and against the decoders."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from coded_jax.codes import quorum
from coded_jax.types import CodeShape
from tests.pipelines import untrained

QUORUMS = [quorum.ANY_K, quorum.ALL_DATA, quorum.one_of_each(3, 6)]


@pytest.mark.parametrize(
    "name, too_few, enough",
    [
        ("mds", [(0,), (2, 3)], [(0, 1, 2), (0, 4, 5), (3, 4, 5)]),
        # The queries of 3 pieces in 2 copies: 0 1 2 0 1 2.
        ("replication", [(0, 1), (0, 3, 1, 4)], [(0, 1, 2), (3, 4, 5), (0, 4, 2)]),
        ("uncoded", [(0, 1), (0, 1, 3, 4, 5)], [(0, 1, 2)]),
    ],
)
def test_when_results_are_enough(name, too_few, enough):
    code = untrained(name, CodeShape(3, 3, (8, 8, 1), (2, 2, 4)))
    assert not any(quorum.suffices(code.quorum, 3, arrived) for arrived in too_few)
    assert all(quorum.suffices(code.quorum, 3, arrived) for arrived in enough)
    assert quorum.sent(code.quorum, 3, 6) == range(3 if name == "uncoded" else 6)


@pytest.mark.parametrize("rule", QUORUMS, ids=lambda rule: rule.name)
def test_masks_and_times_agree_with_sets(rule):
    """A set that suffices does so as a mask, and from the time of its last result."""
    sets = [x for count in range(7) for x in itertools.combinations(range(6), count)]
    masks = np.array([[i in arrived for arrived in sets] for i in range(6)])
    expected = [quorum.suffices(rule, 3, arrived) for arrived in sets]
    assert quorum.suffices_where(rule, 3, masks).tolist() == expected
    assert quorum.suffices_where(rule, 3, jnp.asarray(masks)).tolist() == expected
    times = jnp.where(masks, jnp.arange(1.0, 7.0)[:, None], jnp.inf)
    waits = quorum.waiting_time(rule, 3, list(times[: quorum.sent(rule, 3, 6).stop]))
    for arrived, time in zip(sets, waits.tolist(), strict=True):
        by = lambda t: [i for i in arrived if i < t]  # noqa: B023
        ends = [t for t in range(1, 7) if quorum.suffices(rule, 3, by(t))]
        assert time == min(ends, default=np.inf)


def test_pieces_of_queries():
    rule = quorum.one_of_each(2, 5)
    assert quorum.pieces_of(rule, 2, 5) == (0, 1, 0, 1, 0)
    assert quorum.held(rule, 2, [2, 4]) == {0} and quorum.held(rule, 2, [3]) == {1}
    assert quorum.pieces_of(quorum.ANY_K, 2, 4) == (0, 1, None, None)
    assert quorum.held(quorum.ANY_K, 2, [1, 2]) == {1}
    mixtures = quorum.any_k_mixtures(3)
    assert quorum.pieces_of(mixtures, 2, 3) == (None,) * 3
    assert quorum.held(mixtures, 2, [0, 1]) == set()


def test_a_quorum_has_its_name_in_results():
    for rule in QUORUMS:
        assert quorum.quorum_of(rule.name, 3, 6) == rule


def test_sets_of_results_suffice_with_whatever_else_arrived():
    rule = quorum.one_of_sets([{0, 1}, {2}, {0, 1, 3}])
    assert rule.sets == ((2,), (0, 1))
    for arrived, enough in (({0}, False), ({0, 1}, True), ({2, 3}, True), ((), False)):
        assert quorum.suffices(rule, 2, arrived) == enough
        mask = np.array([i in arrived for i in range(4)])[:, None]
        assert quorum.suffices_where(rule, 2, mask).tolist() == [enough]
    times = [np.float32([x]) for x in (1.0, 4.0, 3.0, 0.5)]
    assert quorum.waiting_time(rule, 2, times).tolist() == [3.0]
    assert quorum.decodes(rule) and list(quorum.sent(rule, 2, 4)) == [0, 1, 2, 3]
    assert quorum.in_words(rule, 2) == "all results of one of 2 sets"
