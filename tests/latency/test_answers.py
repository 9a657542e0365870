"""Answers in a sentence: the runner-up, ties, and where nobody is accurate enough."""

import math

import numpy as np
import pytest

from coded_jax.codes.quorum import ALL_DATA, ANY_K
from coded_jax.latency.answers import first_in_words
from coded_jax.latency.comparison import Forecast, first
from coded_jax.latency.simulation import Machine
from coded_jax.latency.stragglers import Constant
from coded_jax.latency.strategies import EXACT, UNCODED, Strategy
from coded_jax.latency.workloads import Workload
from tests.units import cost, trip

MACHINE = Machine(Constant(1.0), 1.0)


def forecast(family, seconds, accuracy=0.99):
    quorum, r = (ANY_K, 1) if family == EXACT else (ALL_DATA, 0)
    workload = Workload(quorum, 2, r, cost(trip(0.25)))
    known = np.full(2**workload.n, accuracy)
    made = Strategy(family, family, workload, known)
    return Forecast(made, {"p99": seconds}, 1.0, accuracy)


def said(*rows, least=0.9):
    best = first(rows, "p99", least)
    return first_in_words(rows, best, "p99", MACHINE, least)


@pytest.mark.parametrize("seconds", [0.995, 1.005])
def test_a_tie_saves_nothing_and_is_won_by_the_simpler(seconds):
    text = said(forecast(UNCODED, 1.0), forecast(EXACT, seconds))
    assert text.startswith("run uncoded, k=2 r=0, on 2 devices: p99 1e+03 ms, ")
    assert "as fast within 1 %" in text and "saves" not in text


def test_a_lead_is_told_with_its_reason():
    text = said(forecast(UNCODED, 2.0), forecast(EXACT, 1.0))
    assert text.startswith("run exact code, k=2 r=1 (exact code), on 3 devices: ")
    assert "it saves 1e+03 ms" in text and "as fast" not in text


def test_nobody_is_accurate_enough():
    rows = [forecast(UNCODED, math.inf, 0.98), forecast(EXACT, 1.0, 0.75)]
    text = said(*rows, least=0.95)
    assert text.startswith("run nothing of these: ")
    assert "the most accurate one, uncoded, k=2 r=0, has 98.00 %" in text
