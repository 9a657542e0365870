"""Runs of `protect` are loaded, exported and served like any other."""

import json
import shutil

import numpy as np
import pytest

import coded_jax
from tests.errors import refused
from tests.own_cnn import DATASET, f_conv, head, make_variables
from tests.runs.test_coded_model import scaled_sum

NETWORK = {"blocks": f_conv, "head": head}
IMAGES = DATASET.test.images


def protect(workdir, variables=None, **settings):
    usual = {"devices": 1, "epochs": 1, "decoder_width": 8, "baselines": ()}
    own = {"variables": variables or make_variables(), "dataset": DATASET}
    arguments = {**NETWORK, **own, **usual, **settings}
    return coded_jax.protect(workdir=workdir, **arguments)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "own"
    return path, protect(path)


@pytest.fixture(scope="module")
def run_of_a_function(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "function"
    return path, protect(path, code=scaled_sum, baselines=("addition", scaled_sum))


def assert_alike(model, expected):
    assert model.results == json.loads(json.dumps(expected.results))
    for lost in ((), [0], [2]):
        np.testing.assert_array_equal(
            model.logits(IMAGES, lost), expected.logits(IMAGES, lost)
        )
    np.testing.assert_array_equal(
        model.predict(IMAGES, [1]).confidence, expected.predict(IMAGES, [1]).confidence
    )


def test_functions_are_given_and_variables_are_stored(run):
    path, expected = run
    assert_alike(coded_jax.load(path, 1, **NETWORK), expected)
    variables = make_variables()
    assert_alike(coded_jax.load(path, 1, variables=variables, **NETWORK), expected)


DOUBLED = {name: 2 * value for name, value in make_variables().items()}


@pytest.mark.parametrize(
    "name, options",
    [
        ("blocks, head", {}),
        ("blocks, head", {"blocks": f_conv}),
        ("functions", {"blocks": lambda v, x: -f_conv(v, x), "head": head}),
        ("variables", {**NETWORK, "variables": DOUBLED}),
        ("head", {"blocks": f_conv, "head": lambda v, x: x}),
        ("code", {**NETWORK, "code": scaled_sum}),
    ],
)
def test_others_are_refused(run, name, options):
    with refused(name):
        coded_jax.load(run[0], **options)


def test_a_code_that_is_a_function_is_given_again(run_of_a_function, tmp_path):
    path, expected = run_of_a_function
    assert expected.results["baselines"].keys() == {"addition"}
    assert_alike(coded_jax.load(path, 1, code=scaled_sum, **NETWORK), expected)
    with pytest.raises(ValueError, match="^code: None given, the function '.*scaled_"):
        coded_jax.load(path, **NETWORK)

    def negated(shape):
        code = scaled_sum(shape)
        sign = np.array([1, 1, -1], "f").reshape(3, 1, 1, 1, 1)  # of the parity piece
        return code._replace(encode=lambda p, x: code.encode(p, x) * sign)

    with pytest.raises(ValueError, match="^code: others given"):
        coded_jax.load(path, code=negated, **NETWORK)
    copy = shutil.copytree(path, tmp_path / "copy")
    with pytest.raises(ValueError, match="^workdir: .*made with other settings .*code"):
        protect(copy, code=negated)
