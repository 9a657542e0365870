"""Every pattern on arrays or a stream, against what each image's answer says."""

import itertools

import jax
import numpy as np
import pytest

import coded_jax
from coded_jax.inference.pixels import normalise
from tests.errors import refused
from tests.own_cnn import CLASSES, DATASET, f_conv, head, make_variables

NETWORK = {"blocks": f_conv, "head": head}
TEST = DATASET.test


def make_model(mean, std):
    variables = make_variables()
    pipeline = coded_jax.make_pipeline(
        **NETWORK,
        variables=variables,
        image_shape=DATASET.image_shape,
        classes=CLASSES,
        mean=mean,
        std=std,
        k=2,
        r=2,
        decoder_width=8,
    )
    params = pipeline.init(jax.random.key(0))
    return coded_jax.CodedModel(pipeline, variables, params)


@pytest.fixture(scope="module")
def model():
    return make_model(DATASET.mean, DATASET.std)


def accuracy(model, lost):
    return (np.asarray(model.classify(TEST.images, lost)) == TEST.labels).mean()


def test_every_pattern_is_that_of_the_answers(model):
    evaluation = coded_jax.evaluate(model, TEST)
    patterns = [p for l in range(3) for p in itertools.combinations(range(4), l)]
    assert [record.lost for record in evaluation.patterns] == patterns
    for record in evaluation.patterns:
        assert record.accuracy == pytest.approx(accuracy(model, record.lost))
    assert evaluation.images == 20
    assert evaluation.base_accuracy == pytest.approx(accuracy(model, ()))  # systematic
    of_one = [record.accuracy for record in evaluation.patterns[1:5]]
    assert evaluation.mean[1] == pytest.approx(np.mean(of_one))
    assert evaluation.worst[1] == pytest.approx(min(of_one))
    more = coded_jax.evaluate(model, TEST, most_lost=np.int32(4))
    assert (
        len(more.patterns) == 16
        and more.patterns[: len(patterns)] == evaluation.patterns
    )


def test_arrays_and_streams_give_the_same_numbers(model, monkeypatch):
    monkeypatch.setattr("coded_jax.evaluation.predictions.CHUNK", 8)
    expected = coded_jax.evaluate(model, TEST)
    for size in (7, 20):
        stream = (
            (TEST.images[start : start + size], TEST.labels[start : start + size])
            for start in range(0, 20, size)
        )
        assert coded_jax.evaluate(model, stream) == expected
    assert coded_jax.evaluate(model, (TEST.images, TEST.labels)) == expected


def test_float_images_are_taken_as_they_are(model):
    """Those that are no numbers are wrong in the base model, too."""
    images = np.asarray(normalise(TEST.images, DATASET.mean, DATASET.std))
    own, expected = make_model(None, None), coded_jax.evaluate(model, TEST)
    evaluation = coded_jax.evaluate(own, (images, TEST.labels))
    assert evaluation.mean == expected.mean and evaluation.worst == expected.worst
    evaluation = coded_jax.evaluate(own, (images * np.nan, np.zeros(20, int)))
    assert evaluation.base_accuracy == evaluation.mean[0] == evaluation.mean[1] == 0


@pytest.mark.parametrize(
    "name, data, options",
    [
        ("data.labels", (TEST.images, TEST.labels + 1), {}),
        ("images", (TEST.images.astype("f"), TEST.labels), {}),
        ("data", [], {}),
        ("most_lost", TEST, {"most_lost": 5}),
        ("stage_losses", TEST, {"stage_losses": "x"}),
    ],
)
def test_what_is_wrong_is_named(model, name, data, options):
    with refused(name):
        coded_jax.evaluate(model, data, **options)
    with refused("model"):
        coded_jax.evaluate(model.pipeline, TEST)


def test_a_run_and_evaluate_agree(finished):
    model = coded_jax.load(finished, devices=1)
    evaluation = coded_jax.evaluate(model, coded_jax.data.load("mnist_5k").test)
    assert evaluation.base_accuracy == model.results["base"]["test_accuracy"]
    for l, summary in model.results["summary"].items():
        assert evaluation.mean[int(l)] == summary["mean"]
        assert evaluation.worst[int(l)] == summary["worst"]
