"""A code for a CNN of one's own: what is checked, and what a workdir remembers."""

import dataclasses

import jax
import numpy as np
import pytest

import coded_jax
from coded_jax import codes
from coded_jax.evaluation import confidence
from coded_jax.inference.pixels import normalise
from coded_jax.types import Split, Traits
from tests.errors import refused
from tests.own_cnn import CLASSES, DATASET, f_conv, head, make_variables


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

    order = np.array([2, 0, 3, 1])
    variables = {**make_variables(), "order": order, "shift": 0.25}
    model = protect(tmp_path, blocks=shuffled, variables=variables)
    x = normalise(DATASET.test.images, DATASET.mean, DATASET.std)
    expected = head(variables, shuffled(variables, x))
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
    return code._replace(traits=Traits(nonnegative=True))


@pytest.mark.parametrize(
    "name, changes",
    [
        ("devices", {"devices": "1"}),
        ("head", {"head": lambda v, x: x}),
        ("head", {"blocks": lambda v, x: x.mean((1, 2), keepdims=True)}),
        ("head", {"blocks": lambda v, x: x[:, :0]}),
        ("nonnegative", {"code": never_negative}),
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
    base = results["base"]
    assert (base["validation_accuracy"], base["test_accuracy"]) == (1, 0)
    assert results["summary"]["0"]["mean"] == 0
    # Where all answers are right, the surest temperature is the best one.
    assert results["confidence"]["0"]["temperature"] == confidence.TEMPERATURES[0]
