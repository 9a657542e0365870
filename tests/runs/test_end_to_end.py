"""Whole runs of many settings: seeds and rivals, groups, chains, data sets."""

import dataclasses
import shutil

import jax
import jax.export
import numpy as np
import pytest
from rich.console import Console

import coded_jax
from coded_jax import data
from coded_jax.codes import erasures
from coded_jax.evaluation import confidence
from coded_jax.runs import experiment, export, workdir
from coded_jax.runs.config import Config
from coded_jax.runs.places import Places
from coded_jax.runs.prepare import prepare
from tests.data.test_prepared import write_data
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
        nonnegative=True,
        distillation=0.3,
        code_augmentation="shift",
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
    deviation = np.std([first["1"]["worst"], second["1"]["worst"]], ddof=1)
    assert results["summary"]["1"]["worst_std"] == pytest.approx(deviation)
    assert results["seeds"].keys() == {"code", "no_parity"}
    phases = {"base", "code", "code_1", "no_parity", "no_parity_1", "mean_fill"}
    folders = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert folders == phases
    uncoded = results["baselines"]["uncoded"]
    assert uncoded["3"]["mean"] == uncoded["1"]["worst"] == 0
    base = results["base"]["test_accuracy"]
    # Only the loss of the idle device leaves an answer.
    assert uncoded["1"]["mean"] == pytest.approx(base / 3)
    assert results["costs"]["replication"]["encode"] == 0
    assert results["baselines"]["mean_fill"]["1"]["mean"] > 0.5 * base
    surest = results["confidence_of_baselines"]["replication"]["0"]
    assert surest["ece"] == pytest.approx(results["confidence"]["0"]["ece"])
    # The first seed is the one that is served.
    model = coded_jax.load(tmp_path)
    test = data.load("mnist_5k").test
    accuracies = [
        (np.asarray(model.classify(test.images, [i])) == test.labels).mean()
        for i in range(3)
    ]
    assert np.mean(accuracies) == pytest.approx(first["1"]["mean"])
    shutil.rmtree(tmp_path / workdir.MEASURED)
    assert small_run(tmp_path, config)["seeds"] == results["seeds"]


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
    for summary in (results["summary"], results["baselines"]["berrut"]):
        assert summary["1"]["decoded"] <= summary["1"]["mean"]
    lost = results["patterns"][1]
    assert lost["accuracy"] == pytest.approx(
        (2 * base + lost["decoded_accuracy"]) / 3, abs=0.02
    )
    # A worker has the whole network for one of three images.
    costs = results["costs"]["code"]
    assert costs["piece"] == pytest.approx(costs["whole"] / 3)
    model = coded_jax.load(tmp_path)
    images = data.load("mnist_5k").test.images[:6]
    assert model.classify(images, lost=[1]).shape == (6,)
    intact, answer = model.predict(images), model.predict(images, lost=[1])
    arrived = np.arange(6) % 3 != 1
    np.testing.assert_allclose(
        answer.confidence[arrived], intact.confidence[arrived], atol=1e-5
    )
    logits = model.logits(images, [1])[~arrived]
    temperature = results["confidence"]["1"]["temperature"]
    np.testing.assert_allclose(
        answer.confidence[~arrived],
        confidence.confidence(logits, temperature),
        atol=1e-5,
    )
    with pytest.raises(ValueError, match="with a B of a multiple of 3"):
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
        baselines=("replication", "mean_fill"),
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
    with pytest.raises(ValueError, match="^code: 'learned' given, one that is not tr"):
        prepare(trained, Places(tmp_path / "other", devices=1))


@pytest.mark.long
def test_cifar100_through_the_stages_of_a_resnet(tmp_path):
    name, classes = "cifar100", 100
    write_data(tmp_path / "data", name)
    config = Config(
        dataset=name,
        recipe="systematic",
        encoder="conv",
        decoder="conv",
        encoder_width=2,
        decoder_width=2,
        dilations=(1,),
        base_epochs=1,
        epochs=1,
        batch_size=16,
        base_model="resnet18",
        base_width=1 / 16,
        stages=((1, 3), (4, 5)),
        stage_training="per_stage",
        augmentation="flip_shift",
    )
    prepared = prepare(config, Places(tmp_path / "run", str(tmp_path / "data"), 1))
    results = experiment.run(prepared, console=Console(quiet=True))
    lost = [pattern["lost"] for pattern in results["patterns"]]
    assert lost == [(), (0,), (1,), (2,)]
    assert results["patterns"][0]["agreement"] == 1
    model = coded_jax.load(tmp_path / "run", devices=1)
    test = data.load(name, str(tmp_path / "data")).test
    assert model.logits(test.images, [0]).shape == (len(test.labels), classes)
    right = np.asarray(model.classify(test.images, [0])) == test.labels
    assert right.mean() == pytest.approx(results["patterns"][1]["accuracy"])
