"""Faults on purpose: their draws, and the worker and the engine that meet them."""

from concurrent.futures import Future

import numpy as np
import pytest

from coded_jax.latency.stragglers import Constant, ShiftedExponential
from coded_jax.service.faults import Faults, FaultyWorker
from coded_jax.service.parts import Piece
from coded_jax.service.pool import Call, WorkerLost

NEVER = Constant(600.0)
NOW = Constant(0.0)
LIMIT = 300  # seconds in which a test that hangs fails
PIECE = Piece((1, 1), 0, (0, 0), (1, 1, 1))


class Worker:
    """Answers with the query, when it is let."""

    def __init__(self, at_once=True):
        self.at_once, self.calls, self.replaced, self.closed = at_once, [], 0, False
        self.end = Future()

    def compute(self, call):
        future = Future()
        self.calls.append((call, future))
        if self.at_once:
            future.set_result(call.query)
        return future

    def probe(self):
        future = Future()
        future.set_result(None)
        return future

    def watch(self):
        return self.end

    def replace(self):
        self.replaced += 1

    def close(self):
        self.closed = True


def call(request=0, **more):
    return Call(PIECE, np.ones((1, 1, 1, 1), np.float32), request, **more)


def faulty(some, worker=None, index=0, n=1):
    return FaultyWorker(worker or Worker(), index, n, some)


def test_calls_pass_in_order_and_results_come_back():
    worker = Worker(at_once=False)
    wrapper = faulty(Faults(), worker)
    futures = [wrapper.compute(call(i)) for i in range(3)]
    for i, future in enumerate(futures):
        while len(worker.calls) <= i:  # only one at a time is in the worker
            assert not future.done()
        (passed, inner), *others = worker.calls[i:]
        assert passed.request == i and not others
        inner.set_result(i)
        assert future.result(LIMIT) == i
    wrapper.close()
    assert worker.closed


def test_a_delay_occupies_the_worker():
    """Until it is killed, nothing else reaches it; its probe begins a new life."""
    worker = Worker()
    wrapper = faulty(Faults(delays=(NEVER,)), worker)
    futures = [wrapper.compute(call(i)) for i in range(2)]
    assert not any(future.done() for future in futures)
    wrapper.kill()
    for future in (*futures, wrapper.compute(call())):
        assert isinstance(future.exception(LIMIT), WorkerLost)
    assert worker.calls == []
    assert wrapper.probe().result(LIMIT) is None
    warm_up = wrapper.compute(call(None))  # meets no fault
    assert warm_up.result(LIMIT) == 1.0
    wrapper.close()


def test_exceptions_and_nan():
    worker = Worker()
    wrapper = faulty(Faults(exceptions=1.0), worker)
    error = wrapper.compute(call()).exception(LIMIT)
    assert isinstance(error, RuntimeError) and "on purpose" in str(error)
    assert worker.calls == []
    wrapper.faults = Faults(nans=1.0)
    share = wrapper.compute(call()).result(LIMIT)
    assert share.shape == (1, 1, 1, 1) and np.isnan(share).all()
    wrapper.faults = Faults()
    assert wrapper.compute(call()).result(LIMIT) == 1.0
    wrapper.close()


def images_call(*images, request=0):
    """A call whose result, here, is made of these images `[1, 1, 2]`."""
    query = np.asarray(images, np.float32).reshape(-1, 1, 1, 2)
    return Call(PIECE, query, request)


def test_corrupted_results_are_wrong_and_finite():
    wrapper = faulty(Faults(corruptions=1.0, corruption="zeros"))
    compute = lambda *images, **more: wrapper.compute(
        images_call(*images, **more)
    ).result(LIMIT)
    assert not compute([1.0, 2.0]).any()

    wrapper.faults = Faults(corruptions=1.0, corruption="share")
    np.testing.assert_array_equal(compute([3.0, 4.0]).ravel(), [1.0, 2.0])
    np.testing.assert_array_equal(compute([5.0, 6.0]).ravel(), [3.0, 4.0])
    assert not compute([5.0, 6.0], [7.0, 8.0]).any()  # two images: its first such

    wrapper.faults = Faults(corruptions=1.0, corruption="bit")
    few = compute([0.25, 0.5], [-8.0, 0.0])
    assert few.dtype == np.float32 and np.isfinite(few).all()
    assert few[0, 0, 0, 0] == 0.25 and few[0, 0, 0, 1] == 0.5 * 2.0**128
    assert few[1, 0, 0, 0] == -8.0 * 2.0**-128 and few[1, 0, 0, 1] == 0
    wrapper.close()


def test_draws_are_pinned():
    """Studies that are stored have been replayed with these."""
    exponential = ShiftedExponential(0.0, 0.05)
    some = Faults(delays=(exponential,), stragglers=2, exceptions=0.2, nans=0.2, seed=3)
    drawn = [some.of_request(i, 4, attempt) for i in (0, 5) for attempt in (0, 1)]
    expected = [
        [(0.237248, "raise"), (0.182493, ""), (0, ""), (0, "nan")],
        [(0.044902, ""), (0, ""), (0, ""), (0.099575, "")],
        [(0.007116, "raise"), (0, "nan"), (0.102353, ""), (0, "")],
        [(0.09271, ""), (0, "nan"), (0.006636, ""), (0, "")],
    ]
    for request, numbers in zip(drawn, expected, strict=True):
        delays, kinds = zip(*numbers, strict=True)
        assert [fault.kind for fault in request] == [*kinds]
        np.testing.assert_allclose([f.delay for f in request], delays, rtol=1e-3)


@pytest.mark.parametrize(
    "name, value",
    [("nans", 1.5), ("corruption", "lies"), ("stragglers", -1)],
)
def test_wrong_faults_are_refused(name, value):
    with pytest.raises(ValueError, match=f"{name}: "):
        Faults(**{name: value})
