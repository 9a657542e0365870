"""Feature maps of every stage, and answers that losses spoil: numbers and figures."""

import numpy as np
import pytest

import coded_jax
from coded_jax import data
from coded_jax.report import model_figures
from tests.errors import refused
from tests.untrained import untrained_model


@pytest.fixture(scope="module")
def model(finished):
    return coded_jax.load(finished, devices=1)


@pytest.fixture(scope="module")
def split():
    return data.load("mnist_5k").test


def test_maps_of_a_systematic_code(model, split):
    images = split.images[:3]
    for lost in [(), (0,), (2,)]:
        (maps,) = model_figures.feature_maps(model, images, lost)
        assert maps.original.shape == (3, 4, 4, 16)
        gone = slice(0, 2 if lost == (0,) else 0)  # the upper share
        kept = slice(gone.stop, None)
        assert np.isnan(maps.arrived[:, gone]).all()
        for features in (maps.arrived, maps.reconstructed):
            np.testing.assert_allclose(
                features[:, kept], maps.original[:, kept], rtol=1e-4, atol=1e-4
            )
        assert maps.parity.shape == (1, 3, 2, 4, 16)
        assert np.isnan(maps.parity).all() == (lost == (2,))


def test_confusion_adds_up_to_the_accuracies(model, split):
    results = model.results
    for pattern in results["patterns"]:
        counts = model_figures.count_changes(model, split, pattern["lost"])
        drop = results["base"]["test_accuracy"] - pattern["accuracy"]
        changed = counts.spoiled.sum() - counts.mended
        assert changed == round(drop * counts.images)
        assert not np.diagonal(counts.spoiled).any() and counts.images == 1000
    pipeline = model.pipeline
    examples = pipeline.examples._replace(grouped=True)
    groups = model._replace(pipeline=pipeline._replace(examples=examples))
    with refused("split"):
        model_figures.feature_maps(groups, split.images[:2], (0,))


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
