"""Whole runs of many settings: seeds and rivals, groups, chains, data sets."""

import dataclasses
import io
import json
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
from coded_jax.inference.pipeline import base_features
from coded_jax.report import run_tables
from coded_jax.runs import experiment, export, workdir
from coded_jax.runs.config import Config
from coded_jax.runs.places import Places
from coded_jax.runs.prepare import prepare
from coded_jax.training.losses import base_losses
from coded_jax.types import Split
from tests.data.test_prepared import write_data
from tests.runs.test_experiment import SMALL, assert_same, params_of, small_run


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
    shown = Console(width=200, file=io.StringIO())
    shown.print(run_tables.tables(results))
    assert "coded are the convolutions, in 2 rounds, which" in shown.file.getvalue()
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
def test_bfloat16_trains(tmp_path):
    config = dataclasses.replace(
        SMALL, precision="bfloat16", baselines=("zero_fill",), epochs=1
    )
    results = small_run(tmp_path, config)
    assert results["config"]["precision"] == "bfloat16"
    assert results["base"]["test_accuracy"] > 0.7
    params = params_of(tmp_path)
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(params))
    summary, baseline = results["summary"], results["baselines"]["zero_fill"]
    assert summary["0"]["mean"] == results["base"]["test_accuracy"]
    assert summary["1"]["mean"] > baseline["1"]["mean"]


@pytest.mark.long
def test_cifar10_with_the_conv_pair(tmp_path):
    """Colour images, a grid, and a code of convolutions, from TFDS files."""
    write_data(tmp_path / "data", "cifar10")
    config = Config(
        dataset="cifar10",
        k=4,
        r=2,
        grid=(2, 2),
        recipe="paper",
        encoder="conv",
        decoder="conv",
        encoder_width=3,
        decoder_width=4,
        dilations=(1, 2),
        base_epochs=1,
        epochs=1,
        batch_size=8,
    )
    prepared = prepare(config, Places(tmp_path / "run", str(tmp_path / "data")))
    results = experiment.run(prepared, console=Console(quiet=True))
    assert results["split"]["piece_shape"] == (24, 24, 3)
    assert len(results["patterns"]) == 1 + 6 + 15
    model = coded_jax.load(tmp_path / "run")
    assert model.classify(np.zeros((2, 32, 32, 3), np.uint8), (0, 5)).shape == (2,)


@pytest.fixture
def few_images(monkeypatch):
    """Of every data set, as many as a test can afford."""
    load = data.load

    def load_few(*arguments):
        whole = load(*arguments)
        cut = lambda split, size: Split(split.images[:size], split.labels[:size])
        parts = {"train": 32, "validation": 10, "test": 20}
        return dataclasses.replace(
            whole,
            **{name: cut(getattr(whole, name), size) for name, size in parts.items()},
        )

    monkeypatch.setattr(data, "load", load_few)


def phases_of(path):
    lines = (path / "metrics.jsonl").read_text().splitlines()
    return {json.loads(line)["phase"] for line in lines}


TINY = Config(
    dataset="mnist_5k",
    recipe="systematic",
    encoder="conv",
    decoder="conv",
    encoder_width=2,
    decoder_width=2,
    dilations=(1,),
    base_epochs=1,
    epochs=1,
    batch_size=16,
)


@pytest.mark.long
def test_runs_share_a_base_model(tmp_path, few_images, monkeypatch):
    base, traced = tmp_path / "base", []
    monkeypatch.setattr(
        "coded_jax.training.tasks.base_losses",
        lambda *args: traced.append(1) or base_losses(*args),
    )

    def run(name, **fields):
        config = dataclasses.replace(TINY, **fields)
        path = tmp_path / name
        prepared = prepare(config, Places(path, devices=1, base_dir=base))
        return experiment.run(prepared, console=Console(quiet=True))

    first = run("first")
    assert traced and phases_of(base) == {"base"}
    traced.clear()
    second = run("second", recipe="paper", epochs=2)
    assert not traced and "base" not in phases_of(tmp_path / "second")
    assert first["base"] == second["base"]
    assert first["steps"]["base"] == second["steps"]["base"] == 2
    with pytest.raises(
        ValueError, match="^base_dir: .*made with other settings"
    ) as error:
        run("third", base_epochs=2)
    assert "(base_epochs=1 there and 2 now)" in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "third").exists()
    with pytest.raises(
        ValueError, match="^base_dir: .* another folder than the workdir"
    ):
        prepare(TINY, Places(base, devices=1, base_dir=base))
    with pytest.raises(ValueError, match="^base_dir: '' given"):
        prepare(TINY, Places(tmp_path / "third", devices=1, base_dir=""))
    assert f"--base_dir={base}" in (tmp_path / "first" / "flags.txt").read_text()
    shutil.rmtree(base)
    (frozen, _), (again, _) = (params_of(tmp_path / x) for x in ("first", "second"))
    assert_same(frozen, again)


@pytest.mark.long
def test_stages_of_a_vgg_end_to_end(tmp_path, few_images):
    config = dataclasses.replace(
        TINY,
        base_model="vgg16",
        base_width=1 / 16,
        stages=((1, 2), (4, 4)),
        stage_losses="per_stage",
        other_stage_losses=("held", "later"),
        beyond=0.2,
        focus=1.0,
        augmentation="shift",
        label_smoothing=0.1,
    )
    results = small_run(tmp_path, config)
    assert results["split"]["piece_shape"] == (16, 28, 1)
    assert [stage["blocks"] for stage in results["split"]["stages"]] == [(1, 2), (4, 4)]
    assert 0 < results["split"]["coded_fraction"] < 1
    for summary in (results["summary"], *results["baselines"].values()):
        assert summary["0"]["mean"] == results["base"]["test_accuracy"]
    assert json.loads(json.dumps(results)) == workdir.read_results(tmp_path)
    others = results["other_stage_losses"]
    assert list(others) == ["held", "later"]
    for of_codes in others.values():
        assert of_codes.keys() == {"code", *results["baselines"]}
        assert of_codes["code"]["0"] == results["summary"]["0"]

    model = coded_jax.load(tmp_path, devices=1)
    test = data.load("mnist_5k").test
    later = coded_jax.evaluate(model, test, stage_losses="later")
    assert later.worst[1] == pytest.approx(others["later"]["code"]["1"]["worst"])
    uncoded = base_features(model.pipeline, model.frozen, test.images)
    logits = model.pipeline.base.head(model.frozen, uncoded)
    np.testing.assert_allclose(model.logits(test.images), logits, rtol=1e-3, atol=1e-3)
    exported = jax.export.deserialize(bytearray(export.serialize(model, ("cpu",))))
    for lost in ((), (0,), (2,)):
        exported_logits = exported.call(test.images, erasures.available(lost, 3))
        expected = model.logits(test.images, lost)
        np.testing.assert_allclose(exported_logits, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.long
def test_cifar100_through_the_stages_of_a_resnet(tmp_path):
    name, classes = "cifar100", 100
    write_data(tmp_path / "data", name)
    config = dataclasses.replace(
        TINY,
        dataset=name,
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
