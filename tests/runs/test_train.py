"""Training without a run: the parameters of a run, and nothing left behind."""

import tempfile

import jax
import numpy as np
import pytest

import coded_jax
from coded_jax.training import checkpoints
from coded_jax.types import Split
from tests.errors import refused
from tests.own_cnn import CLASSES, DATASET, f_conv, head, make_variables
from tests.runs.test_coded_model import scaled_sum

NETWORK = {"blocks": f_conv, "head": head, "variables": make_variables()}
CONFIG = coded_jax.TrainConfig(epochs=2, batch_size=16)


def make_pipeline(mean=DATASET.mean, std=DATASET.std, **settings):
    return coded_jax.make_pipeline(
        **NETWORK,
        image_shape=DATASET.image_shape,
        classes=CLASSES,
        mean=mean,
        std=std,
        **{"k": 2, "r": 1, "decoder_width": 8, **settings},
    )


def train(data=DATASET, config=CONFIG, pipeline=None, variables=None, **options):
    pipeline = pipeline or make_pipeline()
    variables = make_variables() if variables is None else variables
    return coded_jax.train(pipeline, variables, data, config, **options)


def scaled_sum_of_all(shape):
    return scaled_sum(shape)._replace(systematic=False)


OWN_CODE = {"code": scaled_sum_of_all}  # its rate decays by the recipe, too


@pytest.mark.parametrize("settings", [{"decoder_width": 8}, OWN_CODE])
def test_the_parameters_are_those_of_a_run(tmp_path, monkeypatch, settings):
    saved = lambda *_, **__: pytest.fail("a checkpoint")
    monkeypatch.setattr(checkpoints, "save", saved)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    model = train(pipeline=make_pipeline(**settings))
    run = coded_jax.protect(
        **NETWORK,
        dataset=DATASET,
        devices=1,
        epochs=2,
        batch_size=16,
        baselines=(),
        **settings,
    )
    jax.tree.map(np.testing.assert_array_equal, model.params, run.params)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_gone_on_from_and_is_that_of_one_training(tmp_path):
    part = DATASET.train  # has no mean and deviation of its own
    first = train(part, workdir=tmp_path)
    again = train(part, workdir=tmp_path)
    jax.tree.map(np.testing.assert_array_equal, first.params, again.params)
    others = [
        {"config": coded_jax.TrainConfig(epochs=3, batch_size=16)},
        {"data": DATASET.validation},
        {"pipeline": make_pipeline(code=scaled_sum)},
        {"pipeline": make_pipeline(mean=(0.1,))},
        {"pipeline": make_pipeline(precision="bfloat16")},
    ]
    for arguments in others:
        with refused("workdir"):
            train(**{"data": part, "workdir": tmp_path, **arguments})


TOO_MANY = Split(DATASET.train.images, DATASET.train.labels + 1)
UNTRAINED = {"config": CONFIG, "pipeline": make_pipeline(tail="tuned")}


@pytest.mark.parametrize(
    "name, options",
    [
        ("train.labels", {"data": TOO_MANY}),
        ("config", UNTRAINED),
    ],
)
def test_what_is_wrong_is_named(name, options):
    with refused(name):
        train(**options)
