"""Figures of feature maps, and of the answers that losses spoil."""

import pytest

from coded_jax import data
from coded_jax.report import model_figures
from tests.untrained import untrained_model


@pytest.fixture(scope="module")
def split():
    return data.load("mnist_5k").test


def test_features_of_a_chain(lenet, split):
    chain = untrained_model(lenet, code="mds", stages=((1, 1), (3, 3)))
    drawn = model_figures.features(chain, split.images[:2], (1,))
    titles = [part._suptitle.get_text() for part in drawn.subfigs]
    assert [t.split(",")[0] for t in titles] == [
        "data 1 lost; blocks 1",
        "data 1 lost; blocks 3",
    ]
    # Image, original, arrived, parity, reconstructed, difference: of each image.
    assert [len(part.axes) for part in drawn.subfigs] == [12, 12]
