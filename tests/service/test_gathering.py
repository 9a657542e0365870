"""Gathering results: which are taken, when it ends, what is sent again."""

import threading
import time

import numpy as np
import pytest

from coded_jax import codes
from coded_jax.service.gathering import Gathering, NotEnoughResults, WrongResults
from coded_jax.service.parts import Piece
from coded_jax.service.pool import Call
from coded_jax.types import CodeShape

SHARE = (1, 1, 1)
GOOD = np.ones((1, *SHARE), np.float32)
PAST, NEVER = 0.0, float("inf")


class Pool:
    """Delivers a result of each worker at once, or none."""

    def __init__(self, *results):
        self.results, self.sent, self.losses = results, [], []

    def __len__(self):
        return len(self.results)

    def send(self, worker, call, deliver, wanted):
        self.sent.append((worker, call.piece.index, call.attempt))
        result = self.results[worker]
        if result is not None:
            deliver(result, worker)

    def holder(self, place):
        return place

    def count_loss(self, worker, reason):
        self.losses.append((worker, reason))


def gathers(pool, code, r, limit=NEVER, **rules):
    code = codes.make_code(
        code, CodeShape(2, r, (1, 1, 1), SHARE), {}, codes.CodeConfig()
    )
    calls = [
        Call(Piece((1, 1), i, (0, 0), SHARE), np.zeros((1, 1, 1, 1)), 7)
        for i in range(2 + r)
    ]
    rules |= {"k": 2, "limit": limit, "closed": lambda: False}
    return Gathering(pool, calls, range(2 + r), code, **rules)


def gathering(pool, code="mds", **rules):
    return gathers(pool, code, 1, **rules)


def test_it_ends_with_the_first_k():
    pool = Pool(GOOD, None, 2 * GOOD)
    first = gathering(pool)
    first.run()
    assert first.enough and sorted(first.shares) == [0, 2]
    assert [result.worker for result in first.shares.values()] == [0, 2]
    assert pool.losses == [(1, "late")]
    assert pool.sent == [(0, 0, 0), (1, 1, 0), (2, 2, 0)]


@pytest.mark.parametrize("results", [(GOOD, None, None), (GOOD, ValueError(), None)])
def test_the_results_that_arrived_by_the_limit(results):
    """Also where the limit has passed before anybody looked."""
    with pytest.raises(NotEnoughResults, match=r"results \[0\] of 3 .* any 2 results"):
        gathering(Pool(*results), limit=PAST).run()
    degraded = gathering(Pool(*results), limit=PAST, degrade=True)
    degraded.run()
    assert not degraded.enough and sorted(degraded.shares) == [0]
    enough = gathering(Pool(GOOD, GOOD, None), limit=PAST)
    enough.run()
    assert enough.enough


def test_nothing_is_no_degraded_response():
    with pytest.raises(NotEnoughResults):
        gathering(Pool(None, None, None), limit=PAST, degrade=True).run()
    with pytest.raises(NotEnoughResults, match="all 2 data pieces"):
        waits = gathering(Pool(GOOD, None, None), "uncoded", limit=PAST, degrade=True)
        waits.run()


@pytest.mark.parametrize(
    "bad", [np.nan * GOOD, GOOD[0], np.concatenate([GOOD, GOOD]), RuntimeError("no")]
)
def test_failures_end_it_before_the_limit(bad):
    """Of three results two are bad: the third one is not enough."""
    pool = Pool(GOOD, bad, bad)
    with pytest.raises(NotEnoughResults):
        gathering(pool, limit=time.monotonic() + 600).run()
    counted = [] if isinstance(bad, Exception) else [(1, "bad"), (2, "bad")]
    assert pool.losses == counted


def test_missing_pieces_are_sent_again_to_idle_workers():
    """Worker 0 has finished, and computes piece 1, whose worker failed."""
    pool = Pool(GOOD, RuntimeError("no"))
    hedged = gathering(pool, "uncoded", hedge_after=0.0)
    hedged.run()
    assert hedged.shares[1] == (GOOD, 0, 0)
    assert pool.sent == [(0, 0, 0), (1, 1, 0), (0, 1, 1)]


def test_a_worker_that_failed_is_sent_nothing_more():
    """Worker 2, without a piece, fails with piece 0; so nobody computes piece 1."""
    pool = Pool(None, None, RuntimeError("no"))
    with pytest.raises(NotEnoughResults):
        gathering(pool, "uncoded", limit=time.monotonic() + 0.3, hedge_after=0.0).run()
    assert pool.sent == [(0, 0, 0), (1, 1, 0), (2, 0, 1)]


class Judge:
    """Results agree that are equal; of four or more the one that differs is named."""

    def can_judge(self, pieces):
        return len(pieces) > 2

    def contradict(self, shares):
        return len({float(share.sum()) for share in shares.values()}) > 1

    def culprit(self, shares):
        values = {piece: float(share.sum()) for piece, share in shares.items()}
        counts = list(values.values())
        odd = [piece for piece, value in values.items() if counts.count(value) == 1]
        return odd[0] if len(odd) == 1 and len(shares) > 3 else None


def checked(pool, r=2, limit=NEVER, wait=0.0, judge=None, code="mds"):
    rules = {"judge": judge or Judge(), "check_wait": wait}
    first = gathers(pool, code, r, limit, **rules)
    first.run()
    return first


def test_a_wrong_result_is_left_out_and_counted():
    pool = Pool(GOOD, 2 * GOOD, GOOD, GOOD)
    first = checked(pool)
    assert first.checked and first.wrong == (1,) and sorted(first.shares) == [0, 2, 3]
    assert pool.losses == [(1, "wrong")]


def test_results_that_contradict_without_a_culprit_are_an_error():
    with pytest.raises(WrongResults, match=r"results \[0, 1, 2\] of 3 contradict"):
        checked(Pool(GOOD, 2 * GOOD, GOOD), r=1)
    with pytest.raises(WrongResults, match=r"results \[0, 1, 3\] of 4 contradict"):
        checked(Pool(GOOD, 2 * GOOD, None, GOOD), wait=0.2)  # no longer than this


class Late(Pool):
    """The result of one worker is there a little later."""

    worker, share = 2, GOOD

    def send(self, worker, call, deliver, wanted):
        if worker == self.worker:
            self.timer = threading.Timer(0.1, deliver, (self.share, worker))
            self.timer.start()
        else:
            super().send(worker, call, deliver, wanted)


def test_where_too_few_are_left_it_goes_on_waiting():
    """Of two copies of a piece the wrong one was first: the other one is waited for."""

    class FirstIsWrong(Judge):
        def can_judge(self, pieces):
            return True

        def contradict(self, shares):
            return any(share.sum() != GOOD.sum() for share in shares.values())

        def culprit(self, shares):
            return 1

    pool = Late(GOOD, 2 * GOOD, GOOD, GOOD)
    pool.worker = 3
    late = checked(pool, judge=FirstIsWrong(), code="replication")
    assert late.checked and late.wrong == (1,) and late.enough
    assert sorted(late.shares) == [0, 2, 3]


def test_it_waits_for_the_check_as_long_as_it_is_told():
    """The last result is there a little later; and then never."""
    assert checked(Late(GOOD, GOOD, GOOD), r=1, wait=600.0).checked
    believed = checked(Pool(GOOD, GOOD, None, None), wait=0.0)
    assert not believed.checked
    assert sorted(believed.shares) == [0, 1]
    never = checked(Pool(GOOD, GOOD, None), r=1, wait=0.05)
    assert not never.checked and sorted(never.shares) == [0, 1]
    failed = checked(Pool(GOOD, GOOD, ValueError()), r=1, wait=600.0)
    assert not failed.checked  # nobody is waited for that will not come
