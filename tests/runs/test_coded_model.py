"""A model in memory: its codes exchanged, what it says without a run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import coded_jax
from tests.errors import refused
from tests.own_cnn import CLASSES, DATASET, f_conv, head, make_variables

IMAGES = DATASET.test.images


def make_pipeline(**changes):
    arguments = {
        "blocks": f_conv,
        "head": head,
        "variables": make_variables(),
        "image_shape": DATASET.image_shape,
        "classes": CLASSES,
        "mean": DATASET.mean,
        "std": DATASET.std,
        "decoder_width": 8,
    }
    return coded_jax.make_pipeline(**{**arguments, **changes})


@pytest.fixture(scope="module")
def model():
    pipeline = make_pipeline()
    return coded_jax.CodedModel(
        pipeline, make_variables(), pipeline.init(jax.random.key(0))
    )


def scaled_sum(shape):
    """Its parity piece is the sum of the pieces times a parameter."""

    def encode(params, pieces):
        parity = params["scale"] * pieces.sum(0, keepdims=True)
        return jnp.concatenate([pieces, parity])

    def decode(params, features, available):
        arrived = available[:, :, None, None, None]
        features = jnp.where(arrived, features, 0)
        whole = features[shape.k :] / params["scale"]
        missing = whole - features[: shape.k].sum(0, keepdims=True)
        return jnp.where(arrived[: shape.k], features[: shape.k], missing)

    init = lambda key: {"scale": jnp.ones(())}
    return coded_jax.Code(init, encode, decode, systematic=True)


@pytest.mark.parametrize(
    "name, value",
    [
        ("image_shape", (12, 12)),
        ("std", (0.0,)),
    ],
)
def test_unsound_arguments_of_a_pipeline(name, value):
    with refused(name):
        make_pipeline(**{name: value})


ARRIVED = np.ones((3, 1), bool)


@pytest.mark.parametrize(
    "name, value",
    [
        ("params", make_variables()),
        ("images", IMAGES[:, :10]),
        ("available", ARRIVED[:, 0]),
        ("available", np.ones((3, 2), bool)),
    ],
)
@pytest.mark.parametrize("function", [coded_jax.infer, coded_jax.coded_loss])
def test_wrong_inputs_are_refused(model, function, name, value):
    inputs = {"pipeline": model.pipeline, "params": model.params}
    inputs |= {"images": IMAGES, "available": ARRIVED, name: value}
    frozen = "frozen" if function is coded_jax.infer else "variables"
    with refused(name):
        function(**inputs, **{frozen: model.frozen})


def test_another_code_by_name_or_function(model):
    addition = model.with_code("addition")
    own = model.with_code(scaled_sum, key=jax.random.key(0))
    assert own.pipeline.base is model.pipeline.base and own.frozen is model.frozen
    for lost in ((), [0], [1], [2]):
        logits, expected = own.logits(IMAGES, lost), addition.logits(IMAGES, lost)
        np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)
    doubled = model.with_code(scaled_sum, ({"scale": jnp.float32(2)},))
    assert not np.allclose(doubled.logits(IMAGES, [0]), own.logits(IMAGES, [0]))


def test_more_losses_than_r_degrade_the_answer_or_leave_none(model):
    assert np.isfinite(model.logits(IMAGES, [0, 1])).all()
    assert np.isfinite(model.logits(IMAGES, [0, 2])).all()
    waits = model.with_code("uncoded")
    assert (np.asarray(waits.classify(IMAGES, [0, 1])) == -1).all()
    assert (np.asarray(waits.classify(IMAGES)) >= 0).all()
    with refused("lost"):
        model.classify(IMAGES, [0, 1, 2])
