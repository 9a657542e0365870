"""Dividing, padding and joining requests, in closed form."""

import threading
import time

import numpy as np
import pytest

from coded_jax.service.gathering import Closed
from coded_jax.service.requests import (
    Line,
    Request,
    RequestPart,
    Response,
    lengths,
    padded,
    rows,
)

NEVER = float("inf")


@pytest.mark.parametrize("images", [1, 7, 8, 9, 16, 19])
def test_parts_fit_into_the_sizes(images):
    divided = lengths(images, {1, 8})
    assert sum(divided) == images and max(divided) <= 8
    assert len(divided) == -(-images // 8)
    for size in divided:
        pixels = np.arange(size, dtype=np.uint8).reshape(size, 1, 1, 1)
        batch = padded(pixels, {8, 1, 4})
        assert len(batch) == min(s for s in (1, 4, 8) if s >= size)
        assert (batch[:size] == pixels).all() and (batch[size:] == pixels[-1]).all()


def part(images=1, without=(), begun=None, end=NEVER):
    begun = time.monotonic() if begun is None else begun
    request = Request(None, begun, end, without, 1)
    return RequestPart(request, 0, 0, np.zeros((images, 1, 1, 1), np.uint8))


def test_parts_that_wait_are_joined_up_to_the_most():
    line = Line(8, wait=0.0)
    parts = [part(3), part(4), part(1), part(2), part(8), part(7)]
    line.put(parts)
    line.close()
    taken = [line.take() for _ in range(5)]
    assert [sum(len(p.images) for p in some) for some in taken] == [8, 2, 8, 7, 0]


def test_parts_without_other_workers_are_not_joined():
    line = Line(8, wait=0.0)
    line.put([part(without=(0,)), part(without=(0,)), part(), part(without=(0,))])
    line.close()
    assert [len(line.take()) for _ in range(4)] == [2, 1, 1, 0]
    with pytest.raises(Closed):
        line.put([part()])


def test_the_first_waits_for_others():
    """Until the batch is full, long before its time is up."""
    line = Line(2, wait=600.0)
    line.put([part()])
    timer = threading.Timer(0.05, line.put, ([part()],))
    timer.start()
    assert len(line.take()) == 2
    line.put([part(begun=time.monotonic() - 700)])  # its time is up
    assert len(line.take()) == 1


def response(values, used, degraded=False, seconds=1.0):
    array = np.asarray(values, np.float32)
    arrays = (array[:, None], array, array[:, None], array)
    pieces = (used,)
    return Response(*arrays, pieces, pieces, pieces, degraded, {"total": seconds})


def test_a_request_is_answered_when_all_its_parts_are():
    request = Request(None, 0.0, NEVER, (), 3)
    assert request.wanted() and not request.future.cancel()
    assert request.answer(1, response([2], (0, 1), seconds=3.0)) is None
    assert request.answer(2, response([3, 4], (1, 2), degraded=True)) is None
    whole = request.answer(0, response([0, 1], (1,)))
    assert whole.classes.tolist() == [0, 1, 2, 3, 4] and whole.logits.shape == (5, 1)
    assert whole.used == whole.decoded == ((0, 1, 2),) and whole.arrived == ((1,),)
    assert whole.degraded and whole.seconds == {"total": 3.0}


def test_each_part_has_its_own_images_of_the_response():
    first, second = (
        rows(response([5, 6, 7, 7], (0,)), a, b) for a, b in ((0, 2), (2, 3))
    )
    assert first.classes.tolist() == [5, 6] and second.classes.tolist() == [7]
    assert second.logits.tolist() == [[7.0]] and second.used == ((0,),)
