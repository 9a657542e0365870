"""A model in memory: its codes exchanged, what it says without a run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import coded_jax
from coded_jax.codes import LearnedConfig
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
        ({"image_shape": 28}, r"image_shape: 28 given, \(H, W, C\), whole numbers"),
        ({"image_shape": (12.0, 12, 1)}, r"image_shape: \(12.0, 12, 1\) given"),
        ({"image_shape": (-1, 12, 1)}, r"image_shape: .* of 1 or more, accepted"),
        ({"classes": 3.0}, "classes: 3.0 given, a whole number of 1 or more"),
        ({"classes": "3"}, "classes: '3' given, a whole number"),
        ({"mesh": (1, 1)}, "mesh: 'tuple' given, a Mesh"),
        ({"mean": 0.5, "std": "a"}, "std: 'a' given, 1 numbers"),
        ({"mean": (33.0,)}, r"mean: \(33.0,\) given, 1 numbers of 0 to 1"),
        ({"mean": (0.1, 0.1)}, r"mean: .* given, 1 numbers of 0 to 1"),
        ({"std": (0.0,)}, r"std: \(0.0,\) given, 1 numbers of more than 0 to 1"),
        ({"std": None}, "mean, std: .*both or none"),
    ],
)
def test_unsound_arguments_of_a_pipeline(changes, message):
    with pytest.raises(ValueError, match=f"^{message}") as error:
        make_pipeline(**changes)
    assert "\n" not in str(error.value)


ARRIVED = np.ones((3, 1), bool)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"pipeline": None}, "pipeline: 'NoneType' given, a Pipeline"),
        ({"params": make_variables()}, "params: 'dict' given, a tuple with one entry"),
        ({"params": ({}, {})}, "params: 'tuple' given, a tuple with one entry for"),
        ({"images": IMAGES[0]}, r"images: uint8 \[12, 12, 1\] given, \[B, 12, 12, 1\]"),
        ({"images": IMAGES[:, :10]}, r"images: .* given, \[B, 12, 12, 1\] acc"),
        ({"images": IMAGES.tolist()}, r"images: list \[20, 12, 12, 1\] given"),
        (
            {"available": None},
            r"available: NoneType \[\] given, bool \[3, B\] or \[3, 1",
        ),
        ({"available": (1,)}, r"available: tuple \[1\] given"),
        ({"available": ARRIVED[:, 0]}, r"available: bool \[3\] given"),
        ({"available": ARRIVED[:2]}, r"available: bool \[2, 1\] given"),
        ({"available": ARRIVED.astype("f")}, r"available: float32 \[3, 1\] given"),
        ({"available": np.ones((3, 2), bool)}, r"available: .* with a B of 20"),
        (
            {"available": np.ones((2, 3, 1), bool)},
            r"available: bool \[2, 3, 1\] .* as \[1, 3, ",
        ),
    ],
)
@pytest.mark.parametrize("function", [coded_jax.infer, coded_jax.coded_loss])
def test_wrong_inputs_are_refused(model, function, changes, message):
    inputs = {
        "pipeline": model.pipeline,
        "params": model.params,
        "images": IMAGES,
        "available": ARRIVED,
        **changes,
    }
    frozen = "frozen" if function is coded_jax.infer else "variables"
    with pytest.raises(ValueError, match=f"^{message}") as error:
        function(**inputs, **{frozen: model.frozen})
    assert "\n" not in str(error.value)


def test_labels_are_one_for_each_image(model):
    labels = np.eye(CLASSES)[DATASET.test.labels]
    with pytest.raises(ValueError, match=r"^labels: .* \[20, 3\] given, \[20\] accept"):
        coded_jax.coded_loss(
            model.pipeline, model.params, model.frozen, IMAGES, ARRIVED, labels=labels
        )


@pytest.mark.parametrize("mean", [list(DATASET.mean), *DATASET.mean])
def test_statistics_in_lists_or_alone(mean):
    pipeline = make_pipeline(mean=mean, std=np.array(DATASET.std))
    assert hash((pipeline.mean, pipeline.std)) == hash((DATASET.mean, DATASET.std))


def test_sizes_become_numbers_of_python():
    pipeline = make_pipeline(image_shape=np.array([12, 12, 1]), classes=np.int64(3))
    assert pipeline.image_shape == (12, 12, 1)
    assert type(pipeline.image_shape[0]) is int


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


def test_more_losses_than_r_degrade_the_answer_or_leave_none(model):
    assert np.isfinite(model.logits(IMAGES, [0, 1])).all()
    assert np.isfinite(model.logits(IMAGES, [0, 2])).all()
    waits = model.with_code("uncoded")
    assert (np.asarray(waits.classify(IMAGES, [0, 1])) == -1).all()
    assert (np.asarray(waits.classify(IMAGES)) >= 0).all()
    with pytest.raises(ValueError, match="^lost: all 3 results given, at most 2 acc"):
        model.classify(IMAGES, [0, 1, 2])


def test_another_code_has_the_recipe_of_the_pipeline_or_of_the_config(model):
    key = jax.random.key(0)
    kept = model.with_code("learned", key=key)
    assert kept.pipeline.systematic and kept.pipeline.recipe == "systematic"
    paper = model.with_code("learned", key=key, config=LearnedConfig())
    assert not paper.pipeline.systematic and paper.pipeline.recipe == "paper"


@pytest.mark.parametrize(
    "code, options, message",
    [
        (scaled_sum, {"key": 0}, "key: 'int' given, a key, as of jax.random.key,"),
        ("learned", {"config": {"recipe": "paper"}}, "config: 'dict' given, a Learned"),
        (
            "learned",
            {"params": ({"a": 1},)},
            r"params: nothing given at \[0\]\['decoder'\].*, \[.*\] accepted, as of "
            "init of learned",
        ),
        (
            scaled_sum,
            {"params": ({"scale": jnp.ones(2)},)},
            r"params: \[2\] given at \[0\]\['scale'\], \[\] accepted, as of init of ",
        ),
        (
            scaled_sum,
            {"params": ({"scale": 1.0, "b": 1.0},)},
            r"params: \[\] given at \[0\]\['b'\], nothing accepted",
        ),
    ],
)
def test_another_code_with_unsound_arguments(model, code, options, message):
    with pytest.raises(ValueError, match=f"^{message}") as error:
        model.with_code(code, **options)
    assert "\n" not in str(error.value)


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
