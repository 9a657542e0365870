"""Places, spares that take them over, and workers that err again and again."""

import threading
import time
from concurrent.futures import Future

import numpy as np
import pytest

import coded_jax.service.pool
from coded_jax.service.config import ServeConfig
from coded_jax.service.parts import Piece
from coded_jax.service.pool import Call, Pool, WorkerLost

LIMIT = 60  # seconds in which a test that hangs fails


class Worker:
    """Answers when it is told to; starts anew when it is told to."""

    def __init__(self, process):
        self.process, self.calls, self.replaced = process, [], 0
        self.ends, self.can_start, self.frozen = [Future()], True, False

    def compute(self, call):
        future = Future()
        self.calls.append((call, future))
        return future

    def probe(self):
        future = Future()
        if self.frozen:
            return future
        if self.can_start:
            future.set_result(self.process)
        else:
            future.set_exception(WorkerLost("not yet"))
        return future

    def watch(self):
        return self.ends[-1]

    def replace(self):
        self.replaced += 1
        self.frozen = False

    def close(self):
        pass

    def die(self, comes_back=True):
        """Ends, with all that it was computing."""
        self.can_start, (*_, end) = comes_back, self.ends
        self.ends.append(Future())
        end.set_result(None)
        for _, future in self.calls:
            if not future.done():
                future.set_exception(WorkerLost("died"))


def until(condition):
    end = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


@pytest.fixture
def pool():
    pool = Pool([Worker(100 + i) for i in range(3)], ServeConfig(spares=1))
    pool.wait_until_ready()
    yield pool
    pool.close()


def call(index):
    return Call(Piece((1, 1), index, (0, 0), (1, 1, 1)), np.zeros((1, 1, 1, 1)), 0)


def column(pool, name):
    return [worker[name] for worker in pool.status()]


def test_a_spare_takes_the_place_and_the_pieces_of_a_worker_that_died(pool):
    first, second, spare = pool.workers
    results = []
    deliver = lambda result, worker: results.append((result, worker))
    for index in range(4):  # two of them in the worker, two behind them
        pool.send(0, call(index), deliver, lambda: True)
    until(lambda: len(first.calls) == 2)
    first.die(comes_back=False)
    until(lambda: len(spare.calls) == 2)
    assert column(pool, "place") == [None, 1, 0]
    assert column(pool, "up") == [False, True, True]
    assert pool.up == {0, 1} and pool.holder(0) == 2 and pool.holder(2) == 0
    for index in range(4):
        until(lambda index=index: len(spare.calls) > index)
        done, future = spare.calls[index]
        assert done.piece.index == index
        future.set_result(index)
    until(lambda: results == [(index, 2) for index in range(4)])
    first.can_start = True
    until(lambda: all(column(pool, "up")))
    assert column(pool, "place") == [None, 1, 0]  # it is the spare now
    assert column(pool, "restarts") == [1, 0, 0]
    assert column(pool, "process") == [100, 101, 102]
    second.die()
    until(lambda: column(pool, "place") == [1, None, 0])


def test_a_spare_that_stands_still_is_noticed(monkeypatch):
    """It has nothing to compute, but is asked now and then."""
    monkeypatch.setattr(coded_jax.service.pool, "BEAT", 0.01)
    config = ServeConfig(patience=0.5, spares=1)
    pool = Pool([Worker(100 + i) for i in range(3)], config)
    pool.wait_until_ready()
    spare = pool.workers[2]
    spare.frozen = True
    until(lambda: spare.replaced == 1)
    until(lambda: all(column(pool, "up")))
    status = pool.status()
    assert [worker["restarts"] for worker in status] == [0, 0, 1]
    assert status[2]["losses"]["hung"] == 1
    pool.close()


def computes(pool, result):
    """Has the first worker compute a piece."""
    worker, arrived = pool.workers[0], threading.Event()
    before = len(worker.calls)
    pool.send(0, call(0), lambda *_: arrived.set(), lambda: True)
    until(lambda: len(worker.calls) > before)
    _, future = worker.calls[before]
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)
    assert arrived.wait(LIMIT)


def test_a_worker_that_always_raises_is_replaced(pool):
    for _ in range(5):
        assert column(pool, "restarts")[0] == 0
        computes(pool, RuntimeError("the device is broken"))
    until(lambda: pool.workers[0].replaced == 1)
    assert column(pool, "place") == [None, 1, 0]
    assert pool.status()[0]["losses"]["raised"] == 5


def test_a_worker_that_errs_now_and_then_goes_on(pool):
    for _ in range(6):
        for result in (1, RuntimeError("no"), 2):
            computes(pool, result)
    assert column(pool, "restarts")[0] == 0
    assert pool.status()[0]["losses"]["raised"] == 6
