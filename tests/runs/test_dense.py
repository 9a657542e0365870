"""Answers that are images: labels, losses, metrics and answers for each position."""

import dataclasses

import numpy as np
import pytest

import coded_jax
from coded_jax.inference.pixels import normalise
from tests.dense_cnn import (
    CLASSES,
    SHAPE,
    segment,
    segmented,
    variables_of_segment,
)
from tests.errors import refused

DATASET = segmented()


@pytest.fixture(scope="module")
def protected(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dense")
    settings = {"epochs": 2, "devices": 1, "supervision": 0.5, "baselines": ()}
    own = {"model": segment, "variables": variables_of_segment(), "dataset": DATASET}
    return folder, coded_jax.protect(workdir=folder, **own, **settings)


def iou_by_hand(predicted, labels):
    counted = labels >= 0
    ratios = []
    for c in range(CLASSES):
        a, b = (predicted == c) & counted, (labels == c) & counted
        if (a | b).any():
            ratios.append((a & b).sum() / (a | b).sum())
    return np.mean(ratios)


def test_nothing_lost_gives_the_own_logits_at_each_position(protected):
    _, coded = protected
    x = normalise(DATASET.test.images, DATASET.mean, DATASET.std)
    expected = segment(variables_of_segment(), x)
    logits = coded.logits(DATASET.test.images)
    assert logits.shape == (30, *SHAPE[:2], CLASSES)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)


def test_accuracy_and_intersection_over_union_of_every_pattern(protected):
    _, coded = protected
    labels = DATASET.test.labels
    counted = labels >= 0
    for record in coded.results["patterns"]:
        classes = np.asarray(coded.classify(DATASET.test.images, record["lost"]))
        accuracy = (classes == labels)[counted].mean()
        assert record["accuracy"] == pytest.approx(accuracy, abs=2e-3)
        assert record["mean_iou"] == pytest.approx(
            iou_by_hand(classes, labels), abs=5e-3
        )
    summary = coded.results["summary"]["1"]
    ious = [p["mean_iou"] for p in coded.results["patterns"] if len(p["lost"]) == 1]
    assert summary["mean_iou"] == pytest.approx(np.mean(ious))
    assert summary["worst_iou"] == min(ious)
    base = (np.asarray(coded.classify(DATASET.test.images)) == labels)[counted].mean()
    assert coded.results["base"]["test_accuracy"] == pytest.approx(base, abs=1e-3)
    # Of a class that is nowhere nothing counts.
    evaluation = coded_jax.evaluate(coded, DATASET.test)
    assert evaluation.patterns[1].mean_iou == pytest.approx(
        coded.results["patterns"][1]["mean_iou"], abs=5e-3
    )


def test_parts_in_which_no_label_counts(protected):
    _, coded = protected
    images, labels = DATASET.test.images, DATASET.test.labels
    none = np.full_like(labels, -1)
    # Of as many images as a part has, and more.
    many = (np.tile(images, (20, 1, 1, 1)), np.tile(none, (20, 1, 1)))
    whole = coded_jax.evaluate(coded, (images, labels))
    parts = coded_jax.evaluate(coded, iter([many, (images, labels)]))
    for one, other in zip(parts.patterns, whole.patterns, strict=True):
        assert one.accuracy == pytest.approx(other.accuracy)
        assert one.mean_iou == pytest.approx(other.mean_iou)
    with refused("data"):
        coded_jax.evaluate(coded, (images, none))
    for wrong in (labels[:, :, :4], np.zeros((30, 16, 12, 3), "f")):
        with refused("data.labels"):
            coded_jax.evaluate(coded, (images, wrong))


def test_what_is_wrong_is_named_before_anything_is_trained():
    test = DATASET.test
    wrong = (-np.ones_like(test.labels), test.labels[:, :4], test.labels + 1)
    own = {"model": segment, "variables": variables_of_segment()}
    for labels in wrong:
        part = dataclasses.replace(test, labels=labels)
        with refused("test.labels"):
            dataset = dataclasses.replace(DATASET, test=part)
            coded_jax.protect(**own, dataset=dataset)
    narrow = own | {"model": lambda v, x: segment(v, x)[:, ::2]}
    with refused("model"):
        coded_jax.protect(**narrow, dataset=DATASET)


def test_answers_have_a_confidence_at_each_position(protected):
    folder, coded = protected
    images = DATASET.test.images[:4]
    answer = coded.predict(images, lost=[0], abstain_below=0.5)
    assert answer.classes.shape == answer.confidence.shape == (4, *SHAPE[:2])
    unsure = np.asarray(answer.confidence) < 0.5
    assert (np.asarray(answer.classes)[unsure] == -1).all()
    plan = coded_jax.plan_stages(segment, variables_of_segment(), SHAPE, 2, 1)
    loaded = coded_jax.load(folder, base=plan.base)
    np.testing.assert_allclose(
        loaded.logits(images, [1]), coded.logits(images, [1]), atol=1e-5
    )
