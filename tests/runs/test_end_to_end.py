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
from coded_jax.runs.places import Places
from coded_jax.runs.prepare import prepare
from tests.errors import refused
from tests.runs.test_experiment import SMALL, small_run


@pytest.mark.long
def test_seeds_and_rivals(tmp_path):
    config = dataclasses.replace(
        SMALL,
        seeds=2,
        tried=3,
        baselines=("no_parity", "uncoded", "replication", "mean_fill"),
        encoder_width=16,
        decoder_width=16,
        epochs=0.5,
        base_epochs=1,
    )
    less = dataclasses.replace(config, seeds=1, tried=1, baselines=())
    alone = small_run(tmp_path, less)
    # Finished runs are extended, and what is trained stays.
    results = small_run(tmp_path, config)
    first, second = results["seeds"]["code"]
    assert {l: first[l] for l in ("0", "1")} == alone["summary"]
    assert first["1"]["mean"] != second["1"]["mean"]
    mean = np.mean([first["1"]["mean"], second["1"]["mean"]])
    assert results["summary"]["1"]["mean"] == pytest.approx(mean)
    phases = {"base", "code", "code_1", "no_parity", "no_parity_1", "mean_fill"}
    folders = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert folders == phases
    uncoded, base = results["baselines"]["uncoded"], results["base"]["test_accuracy"]
    assert uncoded["3"]["mean"] == uncoded["1"]["worst"] == 0
    # Only the loss of the idle device leaves an answer.
    assert uncoded["1"]["mean"] == pytest.approx(base / 3)
    assert results["baselines"]["mean_fill"]["1"]["mean"] > 0.5 * base
    # The first seed is the one that is served.
    model, test = coded_jax.load(tmp_path), data.load("mnist_5k").test
    right = [
        (np.asarray(model.classify(test.images, [i])) == test.labels).mean()
        for i in range(3)
    ]
    assert np.mean(right) == pytest.approx(first["1"]["mean"])


@pytest.mark.long
def test_groups_of_images(tmp_path):
    config = dataclasses.replace(
        SMALL, split="group", code="parity_model", k=3, baselines=("berrut",)
    )
    results = small_run(tmp_path, config)
    base = results["base"]["test_accuracy"]
    assert results["summary"]["0"]["mean"] == base
    assert base > results["summary"]["1"]["mean"] > 0.6 * base
    assert 0.1 < results["baselines"]["berrut"]["1"]["mean"] < base
    # Two of three answers arrive; the table has the third one's accuracy by itself.
    lost = results["patterns"][1]
    assert lost["accuracy"] == pytest.approx(
        (2 * base + lost["decoded_accuracy"]) / 3, abs=0.02
    )
    # A worker has the whole network for one of three images.
    costs = results["costs"]["code"]
    assert costs["piece"] == pytest.approx(costs["whole"] / 3)
    model = coded_jax.load(tmp_path)
    images = data.load("mnist_5k").test.images[:6]
    intact, answer = model.predict(images), model.predict(images, lost=[1])
    arrived = np.arange(6) % 3 != 1
    np.testing.assert_allclose(
        answer.confidence[arrived], intact.confidence[arrived], atol=1e-5
    )
    with refused("images"):  # a number that is no multiple of 3
        model.classify(images[:4])
    exported = jax.export.deserialize(bytearray(export.serialize(model, ["cpu"])))
    exported_logits = exported.call(images, erasures.available([1], 4))
    np.testing.assert_allclose(exported_logits, model.logits(images, [1]), atol=1e-4)


def test_every_convolution_by_itself(tmp_path, monkeypatch):
    """An exact code of each, of which nothing is trained but the network."""
    config = dataclasses.replace(
        SMALL,
        split="convolution",
        code="mds",
        baselines=("mean_fill",),
        base_epochs=1,
    )
    kept = lambda *_: pytest.fail("targets are for training")
    monkeypatch.setattr("coded_jax.training.exact_targets.with_targets", kept)
    results = small_run(tmp_path, config)
    base = results["base"]["test_accuracy"]
    assert base > 0.5
    for pattern in results["patterns"]:
        assert pattern["accuracy"] == pytest.approx(base, abs=2e-3)
        assert pattern["agreement"] > 0.998 and pattern["feature_mse"] < 1e-9
    for rival in results["baselines"].values():
        assert rival["0"]["mean"] == base > rival["1"]["worst"]
    split, cost = results["split"], results["costs"]["code"]
    assert [stage["grid"] for stage in split["stages"]] == [(2, 1), (2, 1)]
    assert len(cost["rounds"]) == 2 and cost["devices"] == 3
    # Both convolutions have half of their outputs on each device.
    assert cost["piece"] == (cost["whole"] - cost["uncoded"]) / 2
    model = coded_jax.load(tmp_path)
    images = data.load("mnist_5k").test.images[:8]
    for lost in ([], [0], [1], [2]):
        logits = model.logits(images, lost)
        np.testing.assert_allclose(logits, model.logits(images), rtol=0, atol=1e-4)
    exported = jax.export.deserialize(bytearray(export.serialize(model, ["cpu"])))
    for batch in (3, 8):
        logits = exported.call(images[:batch], erasures.available([1], 3))
        np.testing.assert_allclose(logits, model.logits(images)[:batch], atol=1e-4)
    trained = dataclasses.replace(config, code="learned")
    with refused("code"):
        prepare(trained, Places(tmp_path / "other", devices=1))
