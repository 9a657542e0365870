"""Settings of the learned code."""

import pytest

from tests.codes.learned_examples import SHAPE
from tests.pipelines import learned


@pytest.mark.parametrize(
    "settings",
    [
        {"encoder": "cnn"},
        {"decoder": "MLP"},
        {"decoder_channels": "both"},
        {"decoder_reads": "mask"},
        {"decoder_reads": "input", "decoder": "conv"},  # sharpen alone has a choice
        {"decoder": "linear", "systematic": False},
    ],
)
def test_what_is_not_accepted_is_named(settings):
    argument = next(iter(settings))
    with pytest.raises(ValueError, match=f"^{argument}: .* given, .* accepted") as e:
        learned(SHAPE, **settings)
    assert "\n" not in str(e.value)
