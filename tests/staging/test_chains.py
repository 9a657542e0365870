"""Chains of segments: the best of all, by trying all."""

import itertools

import pytest

from coded_jax.inference.rates import Rates
from coded_jax.splitting.flattening import BATCH, flatten
from coded_jax.staging.chains import best_chains
from coded_jax.staging.graph import make_graph
from coded_jax.staging.segments import segments
from tests.staging.networks import NETWORKS

SLOW, FAST = Rates(), Rates(1e9, 1e-4, 0.0, 1e10, 1.0)


def graph_of(name):
    network = NETWORKS[name]()
    return make_graph(flatten(*network), lambda: flatten(*network, BATCH + 1))


def every_chain(found, most):
    """Yields all chains of segments, one behind the other, fewest rounds first."""
    level = [(segment,) for segment in found]
    for _ in range(most):
        yield from level
        level = [
            (*chain, segment)
            for chain, segment in itertools.product(level, found)
            if chain[-1].end <= segment.start
        ]


@pytest.mark.parametrize("rates", [SLOW, FAST])
@pytest.mark.parametrize("name, k, r", [("pyramid", 2, 1), ("gates", 4, 2)])
def test_best_of_all_chains(name, k, r, rates):
    graph = graph_of(name)
    found, total = list(segments(graph, k, r)), graph.flops()

    def seconds(chain):
        client = total - sum(segment.flops for segment in chain)
        rounds = (rates.round_seconds(s.trip, k + r) for s in chain)
        return rates.client_seconds(client) + sum(rounds)

    chains = best_chains(graph, found, rates=rates, queries=k + r, most_rounds=2)
    for chain in chains:
        assert chain.seconds == pytest.approx(seconds(chain.segments))
        coded = sum(segment.flops for segment in chain.segments) / total
        assert chain.coded == pytest.approx(coded)
    every = [
        (seconds(chain), sum(segment.flops for segment in chain) / total)
        for chain in every_chain(found, 2)
    ]
    for least in (0.0, 0.3, max(coded for _, coded in every) * 0.999):
        best = min(time for time, coded in every if coded >= least)
        own = min(chain.seconds for chain in chains if chain.coded >= least * 0.9999)
        assert own == pytest.approx(best, rel=1e-6)
