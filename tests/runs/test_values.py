"""Answers that are values, as of a network that restores images."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import coded_jax
from coded_jax.evaluation.pattern_accuracy import Spread
from coded_jax.inference.pixels import normalise
from coded_jax.runs.config import Config
from coded_jax.runs.places import Places
from coded_jax.runs.prepare import prepare
from coded_jax.studies import rivals
from coded_jax.training.losses import answer_losses, base_losses
from coded_jax.types import Split
from tests.dense_cnn import (
    CHANNELS,
    SHAPE,
    noisy,
    pipeline_of,
    restore,
    variables_of_restore,
)

DATASET = noisy()
CHEAP = {"parity_pieces": "smaller", "encoder": "linear", "decoder": "sharpen"}
OWN = {"model": restore, "variables": variables_of_restore(), "dataset": DATASET}


@pytest.fixture(scope="module")
def protected(tmp_path_factory):
    folder = tmp_path_factory.mktemp("values")
    settings = {"k": 2, "r": 1, "epochs": 2, "devices": 1, "supervision": 0.5}
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


def test_a_stream_of_pairs_gives_the_same(protected):
    _, coded = protected
    whole = coded_jax.evaluate(coded, DATASET.test)
    pairs = (
        (DATASET.test.images[i : i + 7], DATASET.test.labels[i : i + 7])
        for i in range(0, 30, 7)
    )
    parts = coded_jax.evaluate(coded, pairs)
    base = coded.results["base"]["test_accuracy"]
    assert whole.base_accuracy == pytest.approx(base, abs=1e-4)
    assert parts.base_accuracy == pytest.approx(whole.base_accuracy, abs=1e-5)
    for one, other, own in zip(
        parts.patterns, whole.patterns, coded.results["patterns"], strict=True
    ):
        assert one.psnr == pytest.approx(other.psnr, abs=1e-3)
        assert other.psnr == pytest.approx(own["psnr"], abs=1e-3)
        assert other.accuracy == pytest.approx(own["accuracy"], abs=1e-4)
    heading, last = str(whole).splitlines()[1::2]
    assert heading.split()[3:6] == ["PSNR,", "dB", "worst"]
    ratios = [p.psnr for p in whole.patterns if len(p.lost) == 1]
    shown = [float(text) for text in last.split()[3:5]]
    assert shown == pytest.approx([np.mean(ratios), min(ratios)], abs=1e-2)


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


def test_a_rival_without_a_code_gives_values_too(protected):
    _, coded = protected
    assert rivals.uncoded(coded).values


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
    for ask in (coded.classify, coded.predict):
        with pytest.raises(ValueError, match="^model: one whose answers are values"):
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


def test_a_base_model_learns_values_and_a_code_is_supervised_by_them():
    own = (restore, variables_of_restore(), DATASET)
    pipeline, variables = pipeline_of(*own, **CHEAP)
    batch = {"images": DATASET.train.images[:3], "labels": DATASET.train.labels[:3]}
    losses, _ = base_losses(pipeline, variables, batch)
    x = normalise(batch["images"], DATASET.mean, DATASET.std)
    errors = np.square(np.asarray(restore(variables_of_restore(), x)) - batch["labels"])
    np.testing.assert_allclose(losses, errors.reshape(3, -1).mean(1), rtol=1e-4)
    # With nothing lost the supervised loss is that of the base model.
    params = pipeline.init(jax.random.key(0))
    config = coded_jax.TrainConfig(supervision=1.0)
    available = np.ones((3, 1), bool)
    inputs = (pipeline, params, variables, batch["images"], available)
    own = coded_jax.coded_loss(*inputs, labels=batch["labels"], config=config)
    np.testing.assert_allclose(own, losses.mean(), rtol=1e-3)


@pytest.mark.parametrize(
    "labels, message",
    [
        (
            DATASET.test.labels[..., :1],
            r"test.labels: float32 \[30, 16, 12, 1\] .*float32 \[30, 16, 12, 2\]",
        ),
        (DATASET.test.labels.astype("d"), r"test.labels: float64 .*float32"),
        (DATASET.test.labels[..., 0], r"test.labels: .*, the values of each position"),
        (DATASET.test.labels * np.inf, r"test.labels: .* finite ones accepted"),
        (np.zeros(30, np.int32), r"test.labels: .*, the values of each position"),
    ],
)
def test_labels_of_another_form_are_refused(labels, message):
    test = dataclasses.replace(DATASET.test, labels=labels)
    dataset = dataclasses.replace(DATASET, test=test)
    with pytest.raises(ValueError, match=message):
        coded_jax.protect(**{**OWN, "dataset": dataset})


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


def test_a_model_knows_that_it_gives_values(protected):
    _, coded = protected
    pipeline, variables = pipeline_of(restore, variables_of_restore(), DATASET)
    config = coded_jax.TrainConfig(epochs=0.1, batch_size=32)
    trained = coded_jax.train(pipeline, variables, DATASET, config=config)
    for model in (coded.with_code("zero_fill"), trained):
        assert model.values
        with pytest.raises(ValueError, match="^model: one whose answers are values"):
            model.classify(DATASET.test.images[:2])
    assert not pipeline.values


@pytest.mark.parametrize(
    "labels",
    [
        DATASET.test.labels[:, :8],
        DATASET.test.labels[..., :1],
        DATASET.test.labels[..., 0].astype(np.int32),
        DATASET.test.labels[:, 0, 0, 0],
        np.zeros(30, np.int32),
    ],
)
def test_labels_of_another_form_are_not_evaluated(protected, labels):
    _, coded = protected
    message = r"^data.labels: .* float32 \[30, 16, 12, 2\], the values of"
    with pytest.raises(ValueError, match=message):
        coded_jax.evaluate(coded, (DATASET.test.images, labels))


@pytest.mark.parametrize("shape", [(3, 16, 12, 1), (3, 1, 1, 2), (3, 12, 16, 2)])
def test_labels_are_not_broadcast(shape):
    with pytest.raises(ValueError, match=r"^labels: .* \[3, 16, 12, 2\] accepted"):
        answer_losses(jnp.zeros((3, 16, 12, 2)), jnp.zeros(shape))


def test_a_head_must_have_the_channels_of_the_values():
    one = lambda v, x: restore(v, x)[..., :1]
    with pytest.raises(ValueError, match=r"model: gives \[2, 16, 12, 1\] .*12, 2\]"):
        coded_jax.protect(**{**OWN, "model": one})


def test_settings_of_classes_are_refused(tmp_path):
    config = Config(
        dataset="noisy_canvas", base_model="unet", k=2, r=1, label_smoothing=0.1
    )
    with pytest.raises(ValueError, match="^label_smoothing: 0.1 given, 0 with noisy"):
        prepare(config, Places(str(tmp_path)))
