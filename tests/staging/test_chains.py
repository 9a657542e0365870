"""Chains: the best of all by trying all, and none worse than those chosen by hand."""

import itertools

import jax
import numpy as np
import pytest
from absl import flags

from coded_jax import plan_stages
from coded_jax.cli import experiment_flags, flagfiles
from coded_jax.inference import costs
from coded_jax.inference.rates import Rates
from coded_jax.models import make_base_model
from coded_jax.runs import build
from coded_jax.splitting.flattening import BATCH, flatten
from coded_jax.staging.chains import best_chains
from coded_jax.staging.graph import make_graph
from coded_jax.staging.segments import CodePrice, Work, cuts, segments
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


@pytest.mark.parametrize("name", ["resnet", "dense blocks", "u-net, repeated"])
def test_work_of_a_piece(name):
    graph = graph_of(name)
    work, places = Work(graph), cuts(graph)
    assert places[0] == 0 and places[-1] == len(graph.operations)
    whole = sum(op.flops for op in graph.operations)
    assert work.whole(0, len(graph.operations)) == pytest.approx(whole)
    # A piece without any rows less is the whole, one without rows is nothing.
    op = next(i for i, op in enumerate(graph.operations) if op.fields and op.flops)
    assert work.piece(op, op + 1, 0, 0) == pytest.approx(graph.operations[op].flops)
    rows = NETWORKS[name]()[2][0]
    assert work.piece(op, op + 1, rows, 0) == pytest.approx(0.0, abs=1e-3)


SHAPES = {"cifar10": (32, 32, 3), "cifar100": (32, 32, 3), "folder": (96, 96, 3)}


def chosen_by_hand():
    """Returns the settings of the included flagfiles that name stages, each once."""
    found = {}
    for name in flagfiles.included():
        values = flags.FlagValues()
        for declared in experiment_flags.SETTINGS.values():
            experiment_flags.define(declared, values)
        lines = [x for x in flagfiles.expand([f"--flagfile={name}"]) if "=" in x]
        values([name, *lines], known_only=True)
        own = {x: getattr(values, x) for x in experiment_flags.SETTINGS}
        if own["stages"] and own["split"] == "image" and not own["preactivations"]:
            shape = SHAPES.get(own["dataset"], (28, 28, 1))
            sizes = tuple(
                own[x] for x in ("base_model", "base_width", "k", "r", "grid")
            )
            found[(*sizes, own["stages"], shape)] = name
    return found


BY_HAND = chosen_by_hand()


def test_the_zoo_has_stages_that_were_chosen_by_hand():
    assert len(BY_HAND) >= 10
    assert {name for name, *_ in BY_HAND} >= {"vgg16", "resnet18", "mobilenet"}


@pytest.mark.parametrize("settings", BY_HAND, ids=lambda x: BY_HAND[x])
def test_never_worse_than_the_stages_of_the_zoo(settings):
    name, width, k, r, grid, stages, shape = settings
    base = make_base_model(name, width)
    variables = build.variable_shapes(base, shape, 10)
    config = build.Config(k=k, r=r, grid=grid, stages=stages, base_model=name)
    plans = build._plans(config, base, variables, shape)
    price, rounds, x = CodePrice.linear(k, r), [], shape
    client, coded_flops, done = 0.0, 0.0, 0

    def part(first, last):
        f_conv = build.segment(base.blocks, first, last).f_conv
        image = jax.ShapeDtypeStruct((1, *x), "float32")
        out = jax.eval_shape(f_conv, variables, image).shape[1:]
        return f_conv, costs.count_flops(f_conv, variables, x), out

    for (first, last), plan in plans.items():
        _, flops, x = part(done + 1, first - 1)
        client += flops
        f_conv, flops, x = part(first, last)
        coded_flops += flops
        piece = np.prod(plan.piece_shape)
        share = np.prod(plan.share_shape)
        rounds.append(
            costs.Round(
                costs.count_flops(f_conv, variables, plan.piece_shape),
                4 * piece,
                4 * share,
                price.encode * piece,
                price.decode * share,
            )
        )
        done = last
    _, flops, x = part(done + 1, len(base.blocks))
    client += flops
    client += costs.count_flops(base.head, variables, x)

    model = lambda variables, images: base.head(
        variables, base.f_conv(variables, images)
    )
    for rates in (SLOW, FAST):
        by_hand = rates.client_seconds(client) + sum(
            rates.round_seconds(trip, k + r) for trip in rounds
        )
        coded = 1 - client / (client + coded_flops)
        plan = plan_stages(
            model,
            variables,
            shape,
            k,
            r,
            rates=rates,
            most_rounds=len(stages),
            least_coded=coded * (1 - 1e-6),
        )
        assert plan.chain.coded >= coded * (1 - 1e-6)
        assert plan.chain.seconds <= by_hand * (1 + 1e-6)
