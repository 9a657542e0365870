"""Feature maps of every stage, and the answers that losses spoil."""

import functools

import numpy as np
import pytest

import coded_jax
from coded_jax import data
from coded_jax.data.groups import inputs_of_split
from coded_jax.evaluation import inspection
from coded_jax.evaluation.predictions import TrainedPipeline
from tests.errors import refused


@pytest.fixture(scope="module")
def model(finished):
    return coded_jax.load(finished, devices=1)


@pytest.fixture(scope="module")
def split():
    return data.load("mnist_5k").test


def maps_of(model, images, lost):
    trained = TrainedPipeline(model.pipeline, model.frozen, model.params)
    return inspection.feature_maps(trained, images, lost)


def test_maps_of_a_systematic_code(model, split):
    images = split.images[:3]
    for lost in [(), (0,), (2,)]:
        (maps,) = maps_of(model, images, lost)
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
    inputs = inputs_of_split(model.pipeline, split)
    trained = TrainedPipeline(model.pipeline, model.frozen, model.params)
    confusion = functools.partial(inspection.confusion, trained, inputs)
    for pattern in results["patterns"]:
        counts = confusion(pattern["lost"], classes=10, stage_losses="held")
        drop = results["base"]["test_accuracy"] - pattern["accuracy"]
        changed = counts.spoiled.sum() - counts.mended
        assert changed == round(drop * counts.images)
        assert not np.diagonal(counts.spoiled).any() and counts.images == 1000
    pipeline = model.pipeline
    examples = pipeline.examples._replace(grouped=True)
    groups = model._replace(pipeline=pipeline._replace(examples=examples))
    with refused("split"):
        maps_of(groups, split.images[:2], (0,))
