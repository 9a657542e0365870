"""Settings of the learned code."""

import pytest

from tests.codes.learned_examples import SHAPE
from tests.pipelines import learned


def test_other_decoders_have_no_choice_of_what_they_read():
    with pytest.raises(
        ValueError, match="^decoder_reads: 'input' given, all without sharpen acc"
    ):
        learned(SHAPE, decoder="conv", decoder_reads="input")


@pytest.mark.parametrize(
    "argument, value, accepted",
    [
        ("encoder", "cnn", r"\['mlp', 'conv', 'strided', 'local', 'linear'\]"),
        (
            "decoder",
            "MLP",
            r"\['mlp', 'low_rank', 'conv', 'local', 'pointwise', 'sharpen', 'linear'\]",
        ),
        ("decoder_channels", "both", r"\['joint', 'independent'\]"),
        ("decoder_reads", "mask", r"\['all', 'input', 'pattern', 'results'\]"),
    ],
)
def test_what_is_not_accepted_is_named(argument, value, accepted):
    with pytest.raises(ValueError, match=f"^{argument}: '{value}' .*{accepted}"):
        learned(SHAPE, **{argument: value})
