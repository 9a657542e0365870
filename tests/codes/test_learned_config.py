"""Settings of the learned code."""

import pytest

from coded_jax.inference.pipeline import Examples
from coded_jax.runs.build import build_pipeline
from coded_jax.runs.config import Config
from tests.codes.learned_examples import SHAPE
from tests.errors import refused
from tests.pipelines import learned

SMALLER = {"parity_pieces": "smaller"}
OUTPUTS = {"returned": "outputs"}


@pytest.mark.parametrize(
    "argument, settings",
    [
        ("encoder", {"encoder": "cnn"}),
        ("decoder_reads", {"decoder_reads": "mask"}),
        # Sharpen alone has a choice.
        ("decoder_reads", {"decoder_reads": "input", "decoder": "conv"}),
        ("decoder", {"decoder": "linear", "systematic": False}),
        ("parity_pieces", {**SMALLER, "systematic": False}),
        ("returned", {**OUTPUTS, "systematic": False}),
        # Both are made by the plan, which this shape does not have.
        ("shape.plan", {**SMALLER, "decoder": "sharpen"}),
        ("shape.plan", OUTPUTS),
    ],
)
def test_what_is_not_accepted_is_named(argument, settings):
    with refused(argument):
        learned(SHAPE, **settings)


def test_networks_without_padding_have_no_margin():
    config = Config(recipe="systematic", returned="outputs")
    with refused("returned"):
        build_pipeline(config, Examples((28, 28, 1)), 10)
