"""Figures of feature maps, and of the answers that losses spoil."""

import jax
import numpy as np
import pytest

from coded_jax import data
from coded_jax.models import make_base_model
from coded_jax.report import model_figures
from coded_jax.types import Split
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


def test_values_at_each_position():
    canvases = data.load("noisy_canvas").test
    some = Split(canvases.images[:2], canvases.labels[:2])
    base = make_base_model("unet", 0.25)
    variables = base.init(jax.random.key(0), (64, 64, 1), 1)
    model = untrained_model(
        (base, variables), code="zero_fill", image_shape=(64, 64, 1)
    )
    drawn = model_figures.answers(model, some, (0,))
    shown = [np.asarray(axes.images[0].get_array()) for axes in drawn.axes]
    np.testing.assert_array_equal(shown[6], some.labels[1, ..., 0])
    spread = some.labels.max() - some.labels.min()
    expected = np.abs(shown[2] - shown[3]) / spread
    np.testing.assert_allclose(shown[4], expected, atol=1e-6)
    assert shown[4].max() > 0


def test_what_does_not_count_or_has_no_answer_is_no_class():
    classes = np.array([[0, 5], [21, -1]], np.int32)
    pixels = model_figures._pixels(classes, 0, 21)
    np.testing.assert_array_equal(pixels, [[0, 5], [1, np.nan]])
    colours = np.full((1, 2, 3), 0.5, np.float32)
    colours[0, 1] = np.nan
    pixels = model_figures._pixels(colours, 0, 1)
    np.testing.assert_allclose(pixels, [[(0.5,) * 3, model_figures.LOST]])
