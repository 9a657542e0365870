"""Answers that are values, as of a network that restores images."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

import coded_jax
from coded_jax.evaluation.pattern_accuracy import Spread
from coded_jax.inference.pixels import normalise
from coded_jax.training.losses import answer_losses
from coded_jax.types import Split
from tests.dense_cnn import (
    CHANNELS,
    SHAPE,
    noisy,
    restore,
    variables_of_restore,
)
from tests.errors import refused

DATASET = noisy()
OWN = {"model": restore, "variables": variables_of_restore(), "dataset": DATASET}


@pytest.fixture(scope="module")
def protected(tmp_path_factory):
    folder = tmp_path_factory.mktemp("values")
    settings = {"epochs": 2, "devices": 1, "supervision": 0.5, "baselines": ()}
    return folder, coded_jax.protect(workdir=folder, **OWN, **settings)


def explained_by_hand(values, labels, reference=None):
    reference = labels if reference is None else reference
    return 1 - np.mean(np.square(values - reference)) / labels.var()


def test_nothing_lost_gives_the_own_values(protected):
    _, coded = protected
    x = normalise(DATASET.test.images, DATASET.mean, DATASET.std)
    values = coded.logits(DATASET.test.images)
    assert values.shape == (30, *SHAPE[:2], CHANNELS)
    np.testing.assert_allclose(
        values, restore(variables_of_restore(), x), rtol=1e-4, atol=1e-4
    )


def test_explained_variance_and_psnr_of_every_pattern(protected):
    _, coded = protected
    labels, results = DATASET.test.labels, coded.results
    whole = np.asarray(coded.logits(DATASET.test.images))
    base = explained_by_hand(whole, labels)
    assert results["base"]["test_accuracy"] == pytest.approx(base, abs=1e-4)
    for record in results["patterns"]:
        values = np.asarray(coded.logits(DATASET.test.images, record["lost"]))
        own = explained_by_hand(values, labels)
        assert record["accuracy"] == pytest.approx(own, abs=1e-4)
        agreement = explained_by_hand(values, labels, whole)
        assert record["agreement"] == pytest.approx(agreement, abs=1e-4)
        psnr = -10 * np.log10(np.square(values - labels).mean())
        assert record["psnr"] == pytest.approx(psnr, abs=1e-2)
        assert "mean_iou" not in record
    ratios = [p["psnr"] for p in results["patterns"] if len(p["lost"]) == 1]
    summary = results["summary"]["1"]
    assert summary["mean_psnr"] == pytest.approx(np.mean(ratios))
    assert summary["worst_psnr"] == min(ratios)
    assert results["values"] and results["confidence"] == {}


def test_explained_variance_loses_no_digits_to_a_large_mean():
    labels = np.random.default_rng(0).normal(size=(4, 5, 6, 2)).astype(np.float32)
    for offset in (0, 1e4):
        shifted = (labels + np.float32(offset)).astype(np.float32)
        spread = Spread().plus(shifted[:3]).plus(shifted[3:])
        expected = 1 - 0.25 / shifted.astype(np.float64).var()
        assert spread.explained(0.25) == pytest.approx(expected, rel=1e-9)


def test_of_one_value_nothing_is_explained():
    spread = Spread().plus(np.full((3, 4, 4, 1), 0.1, np.float32))
    spread = spread.plus(np.full((2, 4, 4, 1), 0.1, np.float32))
    assert (spread.explained(0.0), spread.explained(1e-9)) == (1, 0)


def test_no_answer_counts_as_black(protected):
    """Catches NaN in a mean, and answers that are left out of it."""
    _, coded = protected
    uncoded = coded.with_code("uncoded")
    evaluation = coded_jax.evaluate(uncoded, DATASET.test, most_lost=1)
    lost = next(p for p in evaluation.patterns if p.lost == (0,))
    expected = explained_by_hand(
        np.zeros_like(DATASET.test.labels), DATASET.test.labels
    )
    assert lost.accuracy == pytest.approx(expected, abs=1e-4)


def test_values_have_no_class(protected):
    folder, coded = protected
    images = DATASET.test.images[:2]
    zeros = coded.with_code("zero_fill")
    for ask in (coded.classify, coded.predict, zeros.classify):
        with refused("model"):
            ask(images)
    plan = coded_jax.plan_stages(restore, variables_of_restore(), SHAPE, 2, 1)
    loaded = coded_jax.load(folder, base=plan.base)
    np.testing.assert_allclose(
        loaded.logits(images, [1]), coded.logits(images, [1]), atol=1e-5
    )
    assert loaded.values


def test_losses_are_squared_errors():
    values = jnp.arange(12.0).reshape(2, 3, 1, 2)
    losses = answer_losses(values, jnp.zeros_like(values))
    expected = np.square(np.arange(12.0)).reshape(2, 6).mean(1)
    np.testing.assert_allclose(losses, expected)


WRONG = {
    "channels": DATASET.test.labels[..., :1],
    "positions": DATASET.test.labels[:, :8],
    "infinite": DATASET.test.labels * np.inf,
    "classes": np.zeros(30, np.int32),
}


@pytest.mark.parametrize("name", WRONG)
def test_labels_of_another_form_are_refused(protected, name):
    test = dataclasses.replace(DATASET.test, labels=WRONG[name])
    with refused("test.labels"):
        dataset = dataclasses.replace(DATASET, test=test)
        coded_jax.protect(**{**OWN, "dataset": dataset})
    with refused("data.labels"):
        coded_jax.evaluate(protected[1], (test.images, test.labels))


def test_shapes_that_differ_are_refused():
    one = lambda v, x: restore(v, x)[..., :1]
    with refused("model"):
        coded_jax.protect(**{**OWN, "model": one})
    for shape in ((3, 16, 12, 1), (3, 12, 16, 2)):  # neither is broadcast
        with refused("labels"):
            answer_losses(jnp.zeros((3, 16, 12, 2)), jnp.zeros(shape))


def test_the_offset_of_labels_does_not_matter(protected):
    """Catches a variance of float32 sums, as of temperatures in kelvin."""
    _, coded = protected
    moved = Split(DATASET.test.images, DATASET.test.labels + np.float32(5000))
    head = lambda v, x: coded.pipeline.base.head(v, x) + 5000
    base = coded.pipeline.base._replace(head=head)
    model = coded._replace(pipeline=coded.pipeline._replace(base=base))
    given, expected = (
        coded_jax.evaluate(*pair) for pair in ((model, moved), (coded, DATASET.test))
    )
    assert given.base_accuracy == pytest.approx(expected.base_accuracy, abs=2e-2)
    for one, other in zip(given.patterns, expected.patterns, strict=True):
        assert one.accuracy == pytest.approx(other.accuracy, abs=2e-2)
