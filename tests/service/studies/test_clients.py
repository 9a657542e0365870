"""Clients of a service, against answers in closed form."""

import threading
import time
from concurrent.futures import Future
from types import SimpleNamespace

import numpy as np
import pytest

from coded_jax.service.studies import clients

IMAGES = np.arange(5, dtype=np.uint8).reshape(5, 1, 1, 1)


def response(images, degraded=False, shift=0.0, arrived=((0, 1),)):
    logits = np.float32([[images.item() + shift, 1.0]])
    return SimpleNamespace(logits=logits, degraded=degraded, arrived=arrived)


def test_each_client_waits_for_its_answer():
    running, most = [], []

    def ask(images):
        running.append(images)
        most.append(len(running))
        time.sleep(0.001)
        running.pop()
        return response(images)

    exchanges = clients.closed_loop(ask, IMAGES, 3, lambda number: number < 40)
    assert len(exchanges) == 40 and max(most) <= 3
    assert sorted(e.row for e in exchanges) == sorted(i % 5 for i in range(40))
    assert all(e.response.logits[0, 0] == e.row and e.seconds > 0 for e in exchanges)
    begun = [e.begun for e in exchanges]
    assert begun == sorted(begun)


def test_a_stream_goes_on_whoever_is_answered():
    """All of it is sent before the first answer."""
    futures = []

    def submit(images):
        if len(futures) == 3:
            raise RuntimeError("the queue is full")
        futures.append((images, Future()))
        return futures[-1][1]

    timer = threading.Timer(
        0.5, lambda: [f.set_result(response(images)) for images, f in futures]
    )
    timer.start()
    exchanges = clients.open_loop(submit, IMAGES, rate=100, seconds=0.2)
    assert 5 <= len(exchanges) <= 60 and len(futures) == 3
    found = clients.latencies(exchanges)
    assert found["lost"] == len(exchanges) - 3
    assert found["errors"] == ["RuntimeError: the queue is full"]
    assert found["p50"] >= 0.3  # from when it should have been sent


class Model:
    """Its logits are the pixel and 1; with piece 0 lost, the pixel is one more."""

    pipeline = SimpleNamespace(n=2)

    def logits(self, images, lost):
        pixels = images.reshape(len(images), 1).astype(np.float32) + (0 in lost)
        return np.concatenate([pixels, np.ones_like(pixels)], axis=1)


@pytest.mark.parametrize(
    "options, wrong",
    [
        ({"shift": 0.5}, 1),
        ({"shift": float("nan")}, 1),
        ({"arrived": [[1]]}, 1),
        ({"shift": 0.5, "degraded": True}, 0),
    ],
)
def test_wrong_answers_are_counted(options, wrong):
    exchanges = [clients.Exchange(1, 0.0, 1.0, response(IMAGES[1]), "")]
    exchanges.append(clients.Exchange(4, 0.0, 1.0, response(IMAGES[4], **options), ""))
    exchanges.append(clients.Exchange(4, 0.0, 1.0, None, "no"))
    assert clients.wrong_answers(Model(), IMAGES, exchanges) == wrong


def test_latencies_of_requests():
    exchanges = [
        clients.Exchange(0, float(i), i / 10, response(IMAGES[0], degraded=i == 3), "")
        for i in range(11)
    ]
    exchanges.append(clients.Exchange(0, 11.0, 9.0, None, "lost"))
    found = clients.latencies(exchanges)
    assert (found["requests"], found["lost"], found["degraded"]) == (12, 1, 1)
    assert (found["p50"], found["p99"]) == (0.5, pytest.approx(0.99))
    assert (found["slowest"], found["per_second"]) == (1.0, 11 / 20)
    assert clients.latencies(exchanges[-1:])["p50"] is None
