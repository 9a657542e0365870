"""Every pattern on arrays or a stream, against what each image's answer says."""

import itertools

import jax
import numpy as np
import pytest

import coded_jax
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
