"""Disturbances of a service that is a record of its own: what is noticed, and when."""

import signal

import numpy as np
import pytest

from coded_jax.service.studies import fault_injection
from coded_jax.service.studies.fault_injection import Target, disturb, disturbed


class Service:
    """Its summaries come one after the other; signals to its processes are noted."""

    def __init__(self, *summaries):
        self.left, self.signals, self.reloads = iter(summaries), [], 0
        self.last = summaries[-1]

    def summary(self):
        return next(self.left, self.last)

    def reload(self):
        self.reloads += 1


def summary(*up, places=(0, 1, None), restarts=0, obstacle=None):
    workers = [
        {"up": bool(up), "place": place, "process": 100 + i if up == 1 else 200 + i}
        for i, (up, place) in enumerate(zip(up, places, strict=True))
    ]
    return {"workers": workers, "cluster_restarts": restarts, "obstacle": obstacle}


@pytest.fixture
def sent(monkeypatch):
    signals = []
    monkeypatch.setattr(fault_injection.os, "kill", lambda *sent: signals.append(sent))
    monkeypatch.setattr(fault_injection, "LOOK", 0.0)
    return signals


def test_a_worker_is_killed_until_a_spare_has_its_place_and_it_is_back(sent):
    whole = summary(1, 1, 1)
    service = Service(
        whole,
        whole,  # nothing is noticed yet
        summary(0, 0, 1),
        summary(1, 1, 0, places=(0, 1, None)),
        summary(2, 2, 2),
    )
    rng = np.random.default_rng(0)
    done = disturb(Target(service.summary, 1, service.reload), "kill worker", rng)
    ((process, number),) = sent
    assert process in (100, 101, 102) and number == signal.SIGKILL
    assert done.kind == "kill worker"
    assert 0 <= done.noticed <= done.answering <= done.recovered


def test_an_enemy_goes_on_until_it_is_closed(sent):
    service = Service(summary(1, 1, 1))
    target = Target(service.summary, 1, service.reload)
    with disturbed(target, ["reload"], 0.001) as done:
        while service.reloads < 3:
            pass
    assert len(done) == service.reloads
    assert {own.kind for own in done} == {"reload"}
