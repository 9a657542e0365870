"""Whole runs of many settings: seeds and rivals, groups, chains, data sets."""

import dataclasses

import jax
import jax.export
import numpy as np
import pytest

import coded_jax
from coded_jax import data
from coded_jax.codes import erasures
from coded_jax.runs import export
from coded_jax.runs.prepare import prepare
from coded_jax.runs.workdir import Places
from tests.errors import refused
from tests.runs.test_experiment import SMALL, small_run


def assert_exported(model, images, lost):
    exported = jax.export.deserialize(bytearray(export.serialize(model)))
    logits = exported.call(images, erasures.available(lost, model.pipeline.n))
    np.testing.assert_allclose(logits, model.logits(images, lost), atol=1e-4)


@pytest.mark.long
def test_every_convolution_by_itself(tmp_path, monkeypatch):
    """An exact code of each, of which nothing is trained but the network."""
    settings = {"split": "convolution", "code": "mds", "baselines": ("mean_fill",)}
    config = dataclasses.replace(SMALL, base_epochs=1, **settings)
    kept = lambda *_: pytest.fail("targets are for training")
    monkeypatch.setattr("coded_jax.training.exact_targets.with_targets", kept)
    results = small_run(tmp_path, config)
    base = results["base"]["test_accuracy"]
    assert base > 0.5
    for pattern in results["patterns"]:
        assert pattern["accuracy"] == pytest.approx(base, abs=2e-3)
        assert pattern["agreement"] > 0.998 and pattern["feature_mse"] < 1e-9
    split, cost = results["split"], results["costs"]["code"]
    assert [stage["grid"] for stage in split["stages"]] == [(2, 1), (2, 1)]
    # Both convolutions have half of their outputs on each device.
    assert cost["piece"] == (cost["whole"] - cost["uncoded"]) / 2
    model = coded_jax.load(tmp_path)
    assert_exported(model, data.load("mnist_5k").test.images[:3], [1])
    trained = dataclasses.replace(config, code="learned")
    with refused("code"):
        prepare(trained, Places(tmp_path / "other", devices=1))
