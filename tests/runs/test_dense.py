"""Answers that are images: a class, or values, for each position."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

import coded_jax
from coded_jax.evaluation.pattern_accuracy import Spread
from coded_jax.inference.pixels import normalise
from coded_jax.training.losses import answer_losses
from tests import dense_cnn
from tests.dense_cnn import restore, segment
from tests.errors import refused

CLASSES = {
    "model": segment,
    "variables": dense_cnn.variables_of_segment(),
    "dataset": dense_cnn.segmented(),
}
VALUES = {
    "model": restore,
    "variables": dense_cnn.variables_of_restore(),
    "dataset": dense_cnn.noisy(),
}
IMAGES, LABELS = CLASSES["dataset"].test.images, CLASSES["dataset"].test.labels
VALUE_IMAGES = VALUES["dataset"].test.images
TRUE_VALUES = VALUES["dataset"].test.labels


def protect(folder, own):
    settings = {"epochs": 2, "devices": 1, "supervision": 0.5, "baselines": ()}
    return coded_jax.protect(workdir=folder, **own, **settings)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return tmp_path_factory.mktemp("classes"), tmp_path_factory.mktemp("values")


@pytest.fixture(scope="module")
def segmenting(folders):
    return protect(folders[0], CLASSES)


@pytest.fixture(scope="module")
def restoring(folders):
    return protect(folders[1], VALUES)


@pytest.mark.parametrize("index", [0, 1], ids=["classes", "values"])
def test_answers_are_those_of_the_network_also_once_loaded(
    folders, segmenting, restoring, index
):
    own, coded = (CLASSES, VALUES)[index], (segmenting, restoring)[index]
    model, variables, dataset = own.values()
    images = dataset.test.images
    x = normalise(images, dataset.mean, dataset.std)
    logits = coded.logits(images)
    np.testing.assert_allclose(logits, model(variables, x), rtol=1e-4, atol=1e-4)
    plan = coded_jax.plan_stages(model, variables, dense_cnn.SHAPE, 2, 1)
    loaded = coded_jax.load(
        folders[index], blocks=plan.base.blocks, head=plan.base.head
    )
    lost = coded.logits(images, [1])
    np.testing.assert_allclose(loaded.logits(images, [1]), lost, atol=1e-5)
    assert loaded.values == (own is VALUES)


# --- classes --------------------------------------------------------------------------


def iou_by_hand(predicted):
    ratios = []
    for c in range(dense_cnn.CLASSES):
        a, b = (predicted == c) & (LABELS >= 0), LABELS == c
        if (a | b).any():
            ratios.append((a & b).sum() / (a | b).sum())
    return np.mean(ratios)


def test_accuracy_and_intersection_over_union_of_every_pattern(segmenting):
    results, counted = segmenting.results, LABELS >= 0
    for record in results["patterns"]:
        classes = np.asarray(segmenting.classify(IMAGES, record["lost"]))
        accuracy = (classes == LABELS)[counted].mean()
        assert record["accuracy"] == pytest.approx(accuracy, abs=2e-3)
        assert record["mean_iou"] == pytest.approx(iou_by_hand(classes), abs=5e-3)
    summary = results["summary"]["1"]
    ious = [p["mean_iou"] for p in results["patterns"] if len(p["lost"]) == 1]
    assert summary["mean_iou"] == pytest.approx(np.mean(ious))
    assert summary["worst_iou"] == min(ious)
    base = (np.asarray(segmenting.classify(IMAGES)) == LABELS)[counted].mean()
    assert results["base"]["test_accuracy"] == pytest.approx(base, abs=1e-3)


# --- values ---------------------------------------------------------------------------


def explained_by_hand(values, reference=TRUE_VALUES):
    return 1 - np.mean(np.square(values - reference)) / TRUE_VALUES.var()


def test_explained_variance_and_psnr_of_every_pattern(restoring):
    results = restoring.results
    whole = np.asarray(restoring.logits(VALUE_IMAGES))
    base = explained_by_hand(whole)
    assert results["base"]["test_accuracy"] == pytest.approx(base, abs=1e-4)
    for record in results["patterns"]:
        values = np.asarray(restoring.logits(VALUE_IMAGES, record["lost"]))
        own, agreement = explained_by_hand(values), explained_by_hand(values, whole)
        assert record["accuracy"] == pytest.approx(own, abs=1e-4)
        assert record["agreement"] == pytest.approx(agreement, abs=1e-4)
        psnr = -10 * np.log10(np.square(values - TRUE_VALUES).mean())
        assert record["psnr"] == pytest.approx(psnr, abs=1e-2)
    ratios = [p["psnr"] for p in results["patterns"] if len(p["lost"]) == 1]
    summary = results["summary"]["1"]
    assert summary["mean_psnr"] == pytest.approx(np.mean(ratios))
    assert summary["worst_psnr"] == min(ratios)


def test_explained_variance_loses_no_digits_to_a_large_mean():
    """Catches float32 sums, as of temperatures in kelvin."""
    labels = np.random.default_rng(0).normal(size=(4, 5, 6, 2)).astype(np.float32)
    for offset in (0, 1e4):
        shifted = (labels + np.float32(offset)).astype(np.float32)
        spread = Spread().plus(shifted[:3]).plus(shifted[3:])
        expected = 1 - 0.25 / shifted.astype(np.float64).var()
        assert spread.explained(0.25) == pytest.approx(expected, rel=1e-9)


def test_losses_are_squared_errors():
    values = jnp.arange(12.0).reshape(2, 3, 1, 2)
    losses = answer_losses(values, jnp.zeros_like(values))
    expected = np.square(np.arange(12.0)).reshape(2, 6).mean(1)
    np.testing.assert_allclose(losses, expected)
    with refused("labels"):  # not broadcast
        answer_losses(values, jnp.zeros((2, 3, 1, 1)))


# --- what is refused ------------------------------------------------------------------

OTHER_LABELS = {
    "class too high": (CLASSES, LABELS + 1),
    "channels": (VALUES, TRUE_VALUES[..., :1]),
}


@pytest.mark.parametrize("name", OTHER_LABELS)
def test_labels_of_another_form_are_refused(restoring, name):
    own, labels = OTHER_LABELS[name]
    test = dataclasses.replace(own["dataset"].test, labels=labels)
    with refused("test.labels"):
        dataset = dataclasses.replace(own["dataset"], test=test)
        coded_jax.protect(**{**own, "dataset": dataset})
    if own is VALUES:
        with refused("data.labels"):
            coded_jax.evaluate(restoring, (test.images, labels))
