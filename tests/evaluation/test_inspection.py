"""Feature maps of every stage, and the answers that losses spoil."""

import functools

import numpy as np
import pytest

import coded_jax
from coded_jax import data
from coded_jax.data.groups import inputs_of_split
from coded_jax.evaluation import inspection
from coded_jax.evaluation.inspection import StageMaps
from tests.errors import refused


@pytest.fixture(scope="module")
def model(finished):
    return coded_jax.load(finished, devices=1)


@pytest.fixture(scope="module")
def split():
    return data.load("mnist_5k").test


def maps_of(model, images, lost):
    trained = (model.pipeline, model.frozen, model.params)
    return inspection.feature_maps(*trained, images, lost)


def test_maps_of_a_systematic_code(model, split):
    images = split.images[:3]
    for lost in [(), (0,), (2,)]:
        (maps,) = maps_of(model, images, lost)
        assert maps.blocks == (1, 4) and maps.original.shape == (3, 4, 4, 16)
        gone = slice(0, 2 if lost == (0,) else 0)  # the upper share
        kept = slice(gone.stop, None)
        assert np.isnan(maps.arrived[:, gone]).all()
        for features in (maps.arrived, maps.reconstructed):
            np.testing.assert_allclose(
                features[:, kept], maps.original[:, kept], rtol=1e-4, atol=1e-4
            )
        assert maps.parity.shape == (1, 3, 2, 4, 16)
        assert np.isnan(maps.parity).all() == (lost == (2,))


def test_side_by_side_is_scaled_by_the_original():
    original = np.zeros((1, 2, 1, 2), np.float32)
    original[0, :, 0, 0] = 1, 5  # channel 1 is constant
    parity = np.full((2, 1, 1, 1, 2), 7, np.float32)
    parity[1] = np.nan
    maps = StageMaps((1, 1), original, original, parity, original + 2)
    shown, columns = inspection.side_by_side(maps, 1)
    assert shown == [0]
    assert columns["original"].ravel().tolist() == [0, 1]
    assert columns["reconstructed"].ravel().tolist() == [0.5, 1.5]
    assert columns["difference"].ravel().tolist() == [0.5, 0.5]
    assert np.isfinite(columns["parity 0"]).all()
    assert np.isnan(columns["parity 1"]).all()


def test_confusion_adds_up_to_the_accuracies(model, split):
    results = model.results
    inputs = inputs_of_split(model.pipeline, split)
    confusion = functools.partial(
        inspection.confusion, model.pipeline, model.frozen, model.params, inputs
    )
    for pattern in results["patterns"]:
        counts = confusion(pattern["lost"], classes=10, stage_losses="held")
        drop = results["base"]["test_accuracy"] - pattern["accuracy"]
        changed = counts.spoiled.sum() - counts.mended
        assert changed == round(drop * counts.images)
        assert not np.diagonal(counts.spoiled).any() and counts.images == 1000
    groups = model._replace(pipeline=model.pipeline._replace(separate=True))
    with refused("split"):
        maps_of(groups, split.images[:2], (0,))
