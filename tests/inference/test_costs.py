"""Costs of stages and codes, counted by hand."""

import itertools
import json

import numpy as np
import pytest

from coded_jax.inference import costs
from tests.costs import cost_of, costs_of


def test_costs_of_lenet5():
    (cost,) = costs_of((28, 28, 1), k=2, r=1)
    assert (cost.blocks, cost.input_shape, cost.output_shape) == (
        (1, 4),
        (28, 28, 1),
        (4, 4, 16),
    )
    assert (cost.trip.bytes_in, cost.trip.bytes_out) == (4 * 20 * 28, 4 * 2 * 4 * 16)
    # 0.24 M multiply-adds on an image, 0.134 M on a piece; bias, ReLU and pooling.
    assert cost.flops == pytest.approx(2 * 0.24e6, rel=0.03)
    assert cost.trip.device_flops == pytest.approx(2 * 0.134e6, rel=0.04)
    assert cost.plan.work_fraction == 20 / 28
    assert costs.work_fraction([cost]) == 20 / 28


VGG16 = {"base_model": "vgg16", "base_width": 1 / 16}


def test_a_strategy_costs_its_rounds_and_what_the_client_computes():
    settings = {**VGG16, "stages": ((1, 2), (4, 4))}
    stages, cost = costs_of((28, 28, 1), **settings), cost_of((28, 28, 1), **settings)
    assert [c.blocks for c in stages] == [(1, 2), (3, 3), (4, 4), (5, 13)]
    assert [c.plan is None for c in stages] == [False, True, False, True]
    assert [c.trip is None for c in stages] == [False, True, False, True]
    for before, after in itertools.pairwise(stages):
        assert before.output_shape == after.input_shape
    coded = [stages[0], stages[2]]
    weights = [c.flops for c in coded]
    expected = np.average([c.plan.work_fraction for c in coded], weights=weights)
    assert costs.work_fraction(stages) == pytest.approx(expected)
    assert [*cost.rounds] == [c.trip for c in coded]
    assert cost.device_flops == sum(c.trip.device_flops for c in coded)
    assert cost.total.bytes_in == sum(c.trip.bytes_in for c in coded)
    assert cost.total.bytes_out == sum(c.trip.bytes_out for c in coded)
    assert cost.client_flops == stages[1].flops + stages[3].flops
    of_code = sum(c.trip.encode_flops + c.trip.decode_flops for c in coded)
    assert cost.client_total == pytest.approx(of_code + cost.client_flops)
    assert cost.whole_flops == sum(c.flops for c in stages) and cost.devices == 3
    assert cost.whole[1:3] == (28 * 28, 4 * 10)  # pixels of a byte, and ten logits
    assert costs.Cost.from_json(json.loads(json.dumps(cost.to_json()))) == cost
    whole = cost.on_every_device(5)
    assert whole.device_flops == cost.whole_flops and whole.client_total == 0


def test_copies_of_pieces_are_sent_as_pixels():
    """One byte each, where mixtures of pieces are real numbers of four."""
    learned = cost_of((28, 28, 1), code="learned", baselines=())
    copies = cost_of((28, 28, 1), code="replication", baselines=())
    assert (learned.total.bytes_in, copies.total.bytes_in) == (4 * 20 * 28, 20 * 28)
    assert learned.total.bytes_out == copies.total.bytes_out


def test_a_group_shares_its_cost():
    """Each of two images has half of a piece, and of the parity piece, for itself."""
    cost = cost_of((28, 28, 1), split="group", code="addition", baselines=())
    (trip,) = cost.rounds
    assert trip.device_flops == cost.whole_flops / 2
    assert trip.bytes_out == 4 * 10 / 2


def test_costs_of_the_papers_codes():
    """1.88 M and 0.23 M products (Tables I, II, k=2 r=1), beside 0.24 M of F_Conv."""
    (cost,) = costs_of((28, 28, 1), recipe="paper")
    encoder, decoder = 1120 * 1120 + 1120 * 560, 384 * 256 + 2 * 256 * 256
    # A product and a sum each; biases and activations are the rest.
    assert 2 * encoder == pytest.approx(cost.trip.encode_flops, rel=0.01)
    assert 2 * decoder == pytest.approx(cost.trip.decode_flops, rel=0.01)
    convolutions = 24 * 24 * 6 * 25 + 8 * 8 * 16 * 25 * 6
    assert 2 * convolutions == pytest.approx(cost.flops, rel=0.04)


@pytest.mark.parametrize(
    "code, queries, operations",
    [("replication", 0, 0), ("mds", 1, 2), ("berrut", 3, 10)],
)
def test_matrices_cost_the_products_of_the_worst_pattern(code, queries, operations):
    """A lost share is a sum of 2 results; with Berrut, both of 3, if they arrive."""
    (cost,) = costs_of((28, 28, 1), code=code, baselines=())
    assert cost.trip.encode_flops == queries * 20 * 28 * 3  # two products and their sum
    assert cost.trip.decode_flops == operations * 128


def test_memory_is_that_of_the_parameters_and_of_the_second_tail():
    settings = {**VGG16, "stages": ((1, 2), (3, 4)), "recipe": "systematic"}
    settings["supervision"] = 1.0
    cost = cost_of((28, 28, 1), **settings)
    # Each stage has 2 sums of a parity piece, and a decoder of 3 dense layers.
    decoders = 0
    for width, depth, places in ((4, 4, 7 * 14), (5, 8, 4 * 7)):
        inputs, outputs = 3 * depth * places, 2 * depth * places
        decoders += (inputs + 1 + width + 1) * width + (width + 1) * outputs
    assert cost.memory == 4 * (2 * 2 + decoders)
    tuned = cost_of((28, 28, 1), **settings, tail="tuned")
    maps = [8, *[16] * 3, *[32] * 6]  # of blocks 4 to 13
    kernels = sum(9 * a * b + 2 * b for a, b in zip(maps, maps[1:], strict=False))
    assert tuned.memory == cost.memory + 4 * (kernels + 33 * 10)
    # Images with masks of their own need blocks 5 to 13 once more.
    after = costs_of((28, 28, 1), **settings)[-1]
    assert after.blocks == (5, 13) and after.plan is None
    assert (cost.second_tail, tuned.second_tail) == (0, after.flops)
    assert cost_of((28, 28, 1), **settings, code="mds").memory == 0
