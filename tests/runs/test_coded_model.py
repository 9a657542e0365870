"""A model in memory: its codes exchanged, what it says without a run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import coded_jax
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
    "changes, message",
    [
        ({"blocks": None}, "blocks: None given, a function"),
        ({"image_shape": (12, 12)}, r"image_shape: \(12, 12\) given, \(H, W, C\)"),
        ({"mean": (33.0,)}, r"mean: \(33.0,\) given, 1 numbers of 0 to 1"),
        ({"mean": (0.1, 0.1)}, r"mean: .* given, 1 numbers of 0 to 1"),
        ({"std": (0.0,)}, r"std: \(0.0,\) given, 1 numbers of more than 0 to 1"),
        ({"std": None}, "mean, std: .*both or none"),
    ],
)
def test_unsound_arguments_of_a_pipeline(changes, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        make_pipeline(**changes)


def test_statistics_in_lists():
    pipeline = make_pipeline(mean=list(DATASET.mean), std=np.array(DATASET.std))
    assert hash((pipeline.mean, pipeline.std)) == hash((DATASET.mean, DATASET.std))


def test_its_sizes(model):
    assert model.image_shape == (12, 12, 1) and model.classes == CLASSES


def test_another_code_by_name_or_function(model):
    addition = model.with_code("addition")
    own = model.with_code(scaled_sum, key=jax.random.key(0))
    assert own.pipeline.base is model.pipeline.base and own.frozen is model.frozen
    for lost in ((), [0], [1], [2]):
        np.testing.assert_allclose(
            own.logits(IMAGES, lost),
            addition.logits(IMAGES, lost),
            rtol=1e-4,
            atol=1e-4,
        )
    doubled = model.with_code(scaled_sum, ({"scale": jnp.float32(2)},))
    assert not np.allclose(doubled.logits(IMAGES, [0]), own.logits(IMAGES, [0]))


def test_parameters_of_every_stage(model):
    with pytest.raises(ValueError, match="^params: 'dict' given, a tuple with one"):
        model.with_code(scaled_sum, {"scale": jnp.ones(())})


def test_trained_parameters_are_asked_for(model):
    for code, name in ((scaled_sum, "scaled_sum"), ("learned", "learned")):
        message = f"^params: None given, trained parameters of .*{name}, or key= for"
        with pytest.raises(ValueError, match=message):
            model.with_code(code)
    with pytest.raises(ValueError, match="^code: 'absent' given, one of"):
        model.with_code("absent")


def test_without_a_run_there_is_no_confidence(model):
    assert model.results is None and model.classify(IMAGES).shape == (20,)
    with pytest.raises(ValueError, match="^results: None given") as error:
        model.predict(IMAGES)
    assert "\n" not in str(error.value)
