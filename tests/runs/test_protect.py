"""A code for a CNN of one's own: what is checked, and what a workdir remembers."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import coded_jax
from coded_jax import codes
from coded_jax.evaluation import confidence
from coded_jax.inference.pixels import normalise
from coded_jax.types import Split
from tests.errors import refused
from tests.own_cnn import CLASSES, DATASET, conv, f_conv, head, make_variables


def protect(workdir=None, **changes):
    arguments = {
        "blocks": f_conv,
        "head": head,
        "variables": make_variables(),
        "dataset": DATASET,
        "devices": 1,
        "k": 2,
        "r": 1,
        "epochs": 1,
        "decoder_width": 8,
        "baselines": (),
    }
    return coded_jax.protect(workdir=workdir, **{**arguments, **changes})


def test_nothing_lost_gives_the_own_logits(tmp_path):
    # Features of both signs; a bias that is a number, and integers as indices.
    def shuffled(variables, x):
        y = f_conv(variables, x)[..., variables["order"]] - variables["shift"]
        return y.astype(variables["kernel"].dtype)

    variables = {
        **make_variables(),
        "order": np.array([2, 0, 3, 1]),
        "shift": 0.25,
        "key": jax.random.key(0),
        "half": jnp.ones(2, jnp.bfloat16),
    }

    def own_head(variables, features):
        noise = jax.random.normal(variables["key"], (CLASSES,))
        return head(variables, features) + noise[None] * variables["half"].sum()

    model = protect(tmp_path, blocks=shuffled, head=own_head, variables=variables)
    x = normalise(DATASET.test.images, DATASET.mean, DATASET.std)
    expected = own_head(variables, shuffled(variables, x))
    logits = model.logits(DATASET.test.images)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)
    correct = (np.asarray(expected).argmax(1) == DATASET.test.labels).mean()
    assert model.results["base"]["test_accuracy"] == pytest.approx(correct)
    # What is decoded has both signs too.
    lost = model.logits(DATASET.test.images, lost=[0])
    assert np.isfinite(lost).all() and not np.allclose(lost, expected, atol=1e-3)


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A workdir and the model that `protect` leaves in it."""
    workdir = tmp_path_factory.mktemp("runs") / "own"
    return workdir, protect(workdir)


def gated(variables, x):
    """A whole network: a skip connection around a gate, between two convolutions."""
    first = jnp.tanh(conv(variables["kernel"], x))
    gate = jax.nn.sigmoid(first.mean((1, 2), keepdims=True))
    y = jnp.tanh(conv(variables["second"], first * jnp.broadcast_to(gate, first.shape)))
    return (first + y).mean((1, 2)) @ variables["logits"]


def gated_variables():
    rng = np.random.default_rng(2)
    return {
        "kernel": rng.normal(size=(3, 3, 1, 4)).astype("f"),
        "second": rng.normal(size=(3, 3, 4, 4)).astype("f"),
        "logits": rng.normal(size=(4, CLASSES)).astype("f"),
    }


def test_a_whole_network_is_staged_by_itself(tmp_path):
    variables = gated_variables()
    whole = {"blocks": None, "head": None, "decoder_width": None}
    model = protect(tmp_path, **whole, model=gated, variables=variables)
    # The gate is the client's, and it keeps what the sum needs.
    assert model.results["config"]["stages"] == ((1, 1), (3, 3))
    assert model.pipeline.stages[1].code.guided  # of the cheap codes
    x = normalise(DATASET.test.images, DATASET.mean, DATASET.std)
    expected = gated(variables, x)
    images = DATASET.test.images
    np.testing.assert_allclose(model.logits(images), expected, rtol=1e-4, atol=1e-4)
    lost = model.logits(images, lost=[1])
    assert np.isfinite(lost).all() and not np.allclose(lost, expected, atol=1e-3)
    plan = coded_jax.plan_stages(gated, variables, (12, 12, 1), 2, 1)
    loaded = coded_jax.load(tmp_path, base=plan.base)
    np.testing.assert_allclose(loaded.logits(images, lost=[1]), lost, atol=1e-5)


def test_training_ends_on_what_is_kept():
    """Distillation reads the skip connection, with the exact one as its target: a code
    that loses nothing has no error."""
    plan = coded_jax.plan_stages(gated, gated_variables(), (12, 12, 1), 2, 1)
    pipeline = coded_jax.make_pipeline(
        blocks=plan.base.blocks,
        head=plan.base.head,
        variables=plan.variables,
        image_shape=(12, 12, 1),
        classes=CLASSES,
        mean=(0.5,),
        std=(0.3,),
        code="mds",
        stages=plan.stages,
        stage_grids=plan.grids,
    )
    inputs = (pipeline, pipeline.init(jax.random.key(0)), plan.variables)
    loss = lambda *available: coded_jax.coded_loss(
        *inputs,
        DATASET.test.images,
        jnp.array(available)[:, None],
        config=coded_jax.TrainConfig(distillation=1.0),
    )
    assert loss(True, True, True) < 1e-8 < 1e-3 < loss(True, False, True)


def test_a_workdir_is_that_of_one_cnn_and_one_data_set(kept):
    workdir, first = kept
    again = protect(workdir)
    assert again.results["timing"]["resumed"]
    jax.tree.map(np.testing.assert_array_equal, first.params, again.params)

    scale = np.float32(2)
    variables = make_variables()
    flipped = dataclasses.replace(DATASET, test=DATASET.validation)
    others = [
        ("functions", {"blocks": lambda variables, x: f_conv(variables, x) * scale}),
        ("functions", {"head": lambda variables, x: head(variables, -x)}),
        ("variables", {"variables": {**variables, "kernel": variables["kernel"] + 1}}),
        ("data", {"dataset": flipped}),
    ]
    for name, arguments in others:
        there = rf"^workdir: .*\(fingerprint_of_{name}=\w+ there and \w+ now\);"
        with pytest.raises(ValueError, match=there):
            protect(workdir, **arguments)


def never_negative(shape):
    code = codes.CODES["addition"].make(shape, {}, codes.LearnedConfig())
    return code._replace(nonnegative=True)


WHOLE = {"blocks": None, "head": None, "decoder_width": None, "model": gated}
TWO_LOGITS = {"model": lambda v, x: gated(v, x)[:, :2], "variables": gated_variables()}


@pytest.mark.parametrize(
    "name, changes",
    [
        ("blocks", {"blocks": []}),
        ("devices", {"devices": "1"}),
        ("test", {"dataset": dataclasses.replace(DATASET, test=None)}),
        ("mean", {"dataset": dataclasses.replace(DATASET, mean=(127.5,))}),
        ("variables", {"variables": {"kernel": "text"}}),
        ("head", {"head": lambda v, x: x}),
        ("head", {"blocks": lambda v, x: x.mean((1, 2), keepdims=True)}),
        ("image_shape", {"blocks": lambda v, x: x[:, :0]}),
        ("nonnegative", {"code": never_negative}),
        ("stages", WHOLE | {"stages": ((1, 1),)}),
        ("head", WHOLE | {"head": head}),
        ("model", {**WHOLE, **TWO_LOGITS}),
    ],
)
def test_what_is_wrong_is_named(tmp_path, name, changes):
    with refused(name):
        protect(tmp_path / "run", **changes)
    assert not (tmp_path / "run").exists()


def test_the_test_split_chooses_nothing(tmp_path):
    """Catches validation and test split in each other's place anywhere in a run."""
    x = normalise(DATASET.test.images, DATASET.mean, DATASET.std)
    right = head(make_variables(), f_conv(make_variables(), x)).argmax(-1)
    part = lambda labels: Split(DATASET.test.images, np.asarray(labels, np.int32))
    dataset = dataclasses.replace(
        DATASET, validation=part(right), test=part((right + 1) % CLASSES)
    )
    options = {"code": "zero_fill", "baselines": ()}
    results = protect(tmp_path, dataset=dataset, **options).results
    assert results["base"] == {"validation_accuracy": 1, "test_accuracy": 0}
    assert results["summary"]["0"]["mean"] == 0
    # Where all answers are right, the surest temperature is the best one.
    assert results["confidence"]["0"]["temperature"] == confidence.TEMPERATURES[0]
