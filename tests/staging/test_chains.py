"""Chains: the best of all by trying all, and none worse than those chosen by hand."""

import itertools

import jax
import pytest

from coded_jax import plan_stages
from coded_jax.inference.costs import count_flops
from coded_jax.inference.rates import Rates
from coded_jax.models import make_base_model
from coded_jax.runs import build
from coded_jax.splitting.flattening import BATCH, flatten
from coded_jax.staging.chains import best_chains
from coded_jax.staging.graph import make_graph
from coded_jax.staging.segments import CodePrice, Work, segments
from tests.costs import cost_of
from tests.staging.networks import NETWORKS

SLOW, FAST = Rates(), Rates(1e9, 1e-4, 0.0, 1e10, 1.0)


def graph_of(name):
    network = NETWORKS[name]()
    return make_graph(flatten(*network), lambda: flatten(*network, BATCH + 1))


def found_in(name, k, r):
    graph = graph_of(name)
    work = Work(graph)
    found = list(segments(graph, work, k, CodePrice.linear(k, r)))
    return work, len(graph.operations), found


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
@pytest.mark.parametrize("name, k, r", [("resnet", 2, 1), ("gates", 4, 2)])
def test_best_of_all_chains(name, k, r, rates):
    work, last, found = found_in(name, k, r)
    total = work.whole(0, last)

    def seconds(chain):
        client = total - sum(segment.flops for segment in chain)
        rounds = (rates.round_seconds(s.trip, k + r) for s in chain)
        return rates.client_seconds(client) + sum(rounds)

    chains = best_chains(found, work, last, rates, k + r, 2)
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


@pytest.mark.parametrize("rates", [SLOW, FAST])
def test_never_worse_than_stages_chosen_by_hand(rates):
    """In as many rounds, with as much of the work coded, where codes cost nothing."""
    name, shape, stages = "resnet18", (32, 32, 3), ((1, 3), (4, 5), (6, 6), (7, 7))
    config = dict(base_model=name, base_width=1 / 8, stages=stages, grid=(1, 2))
    cost = cost_of(shape, code="uncoded", baselines=(), **config)
    # Pixels are sent as numbers of four bytes.
    first = cost.rounds[0]._replace(bytes_in=4 * cost.rounds[0].bytes_in)
    base = make_base_model(name, 1 / 8)
    variables = build.variable_shapes(base, shape, 10)
    image = jax.ShapeDtypeStruct((1, *shape), "float32")
    features = jax.eval_shape(base.f_conv, variables, image).shape[1:]
    head = count_flops(base.head, variables, features)  # that no record has
    by_hand = rates.client_seconds(cost.client_flops + head) + sum(
        rates.round_seconds(trip, 3) for trip in (first, *cost.rounds[1:])
    )
    coded = 1 - (cost.client_flops + head) / (cost.whole_flops + head)
    plan = plan_stages(
        lambda variables, images: base.head(variables, base.f_conv(variables, images)),
        variables,
        shape,
        2,
        1,
        rates=rates,
        price=CodePrice(0.0, 0.0),
        most_rounds=len(stages),
        least_coded=coded * (1 - 1e-6),
    )
    assert plan.chain.coded >= coded * (1 - 1e-6)
    assert plan.chain.seconds <= by_hand * (1 + 1e-6)
