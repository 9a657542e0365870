"""Feature maps of every stage, and the answers that losses spoil."""

import json

import numpy as np
import pytest

import coded_jax
from coded_jax import data
from coded_jax.data.groups import inputs_of_split
from coded_jax.evaluation import inspection
from coded_jax.evaluation.inspection import StageMaps
from coded_jax.types import Split
from tests.untrained import untrained_model


def confusion(model, split, lost):
    losses = model.results["config"]["stage_losses"]
    return inspection.confusion(
        model.pipeline,
        model.frozen,
        model.params,
        inputs_of_split(model.pipeline, split),
        lost,
        classes=model.results["classes"],
        stage_losses=losses,
    )


@pytest.fixture(scope="module")
def model(finished):
    return coded_jax.load(finished, devices=1)


@pytest.fixture(scope="module")
def split():
    return data.load("mnist_5k").test


@pytest.fixture(scope="module")
def results(finished):
    return json.loads((finished / "results.json").read_text())


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


def test_maps_of_a_chain_that_is_exact(lenet, split):
    chain = untrained_model(lenet, code="mds", stages=((1, 1), (3, 3)))
    first, second = maps_of(chain, split.images[:2], (1,))
    assert (first.blocks, second.blocks) == ((1, 1), (3, 3))
    for maps in (first, second):
        np.testing.assert_allclose(maps.reconstructed, maps.original, atol=1e-3)
        assert np.isnan(maps.arrived).any() and len(maps.parity) == 1


def test_codes_without_parity_have_no_maps_of_it(lenet, split):
    model = untrained_model(lenet, code="mean_fill")
    (maps,) = maps_of(model, split.images[:2], (0,))
    assert len(maps.parity) == 0
    shown, columns = inspection.side_by_side(maps, 3)
    assert len(shown) == 3
    assert list(columns) == ["original", "arrived", "reconstructed", "difference"]


def test_picture_while_a_code_trains(model, split):
    images = split.images[:3]
    draw = inspection.drawer(model.pipeline, model.frozen, images, [0])
    picture = draw(model.params)
    (maps,) = maps_of(model, images, [0])
    # 3 images of 4 rows, 3 kinds of 4 channels of 4 columns; 6 pixels each, and a line.
    size = 4 * 6 + 2
    assert picture.shape == (3 * size, 3 * 4 * size, 3) and picture.dtype == np.uint8
    shown, columns = inspection.side_by_side(maps, 4)
    grey = np.uint8(255 * columns["original"][1, :, :, 2])
    first = picture[size : 2 * size : 6, 2 * size : 3 * size : 6][:4, :4]
    np.testing.assert_array_equal(first, np.repeat(grey[..., None], 3, -1))
    arrived = picture[: size - 2, 4 * size : 5 * size - 2]
    red = (arrived == (255, 0, 0)).all(-1)
    assert red[:12].all() and not red[12:].any()  # data 0 has the upper rows
    group = model.pipeline._replace(separate=True)
    assert inspection.drawer(group, model.frozen, images, [0]) is None


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


def test_groups_have_no_feature_maps(model, split):
    groups = model._replace(pipeline=model.pipeline._replace(separate=True))
    with pytest.raises(ValueError, match="^split: 'group' given"):
        maps_of(groups, split.images[:2], (0,))


def test_confusion_adds_up_to_the_accuracies(model, split, results):
    for pattern in results["patterns"]:
        counts = confusion(model, split, pattern["lost"])
        drop = results["base"]["test_accuracy"] - pattern["accuracy"]
        changed = counts.spoiled.sum() - counts.mended
        assert changed == round(drop * counts.images)
        assert not np.diagonal(counts.spoiled).any() and counts.images == 1000
    with pytest.raises(ValueError, match="^lost: "):
        confusion(model, split, (3,))


def test_confusion_of_a_code_without_an_answer(lenet, split):
    some = Split(split.images[:50], split.labels[:50])
    model = untrained_model(lenet, code="uncoded")
    results = {"config": {"stage_losses": "held"}, "classes": 10}
    model = model._replace(results=results)
    counts = confusion(model, some, (0,))
    right = (model.classify(some.images) == some.labels).sum()
    assert counts.spoiled[:, -1].sum() == counts.spoiled.sum() == right
    assert counts.mended == 0
