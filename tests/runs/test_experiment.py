"""The whole run: results, refusal of bad settings, and kill -9 at any moment."""

import contextlib
import dataclasses
import functools
import json
import os
import pathlib
import re
import shutil
import signal
import time

import jax
import jax.export
import numpy as np
import pytest
from rich.console import Console
from tables import stored

import coded_jax
from coded_jax import data
from coded_jax.evaluation import confidence
from coded_jax.runs import experiment, phases, workdir
from coded_jax.runs.config import Config
from coded_jax.runs.prepare import prepare
from coded_jax.runs.workdir import Places
from coded_jax.training.loop import Interrupted
from tests.errors import refused
from tests.scripts import Script

PHASES = ("base", "code", "no_parity")
ROOT = pathlib.Path(__file__).parents[2]
SMALL = Config(
    dataset="mnist_5k",
    recipe="systematic",
    encoder_width=64,  # a twentieth of the work of its own width
    base_epochs=1.5,
    epochs=1.5,
    seed=3,
)


def quietly():
    return Console(quiet=True)


def small_run(path, config=SMALL):
    prepared = prepare(config, Places(path, devices=1))
    return experiment.run(prepared, console=quietly(), command="small").results


@contextlib.contextmanager
def stopping(wish):
    """Lets a function say when a run is asked to stop, as Ctrl-C does."""
    with pytest.MonkeyPatch.context() as patch:
        asked = lambda: contextlib.nullcontext(wish)
        patch.setattr(phases, "stop_requests", asked)
        yield


def params_of(path):
    model = coded_jax.load(path, devices=1)
    return model.frozen, model.params


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_results_have_the_documented_layout(finished):
    results = workdir.read_results(finished)
    provenance, config = results["provenance"], Config.from_json(results["config"])
    assert provenance["command"] == results["command"]
    assert provenance["flags"] == config.to_flags()
    assert results["dataset"] == "mnist_5k" and results["seed"] == 3
    (stage,) = results["split"]["stages"]
    assert (stage["blocks"], stage["piece_shape"]) == ([1, 4], [20, 28, 1])
    patterns = results["patterns"]
    assert [pattern["lost"] for pattern in patterns] == [[], [0], [1], [2]]
    accuracies = [pattern["accuracy"] for pattern in patterns]
    assert results["summary"]["1"] == {
        "mean": pytest.approx(np.mean(accuracies[1:])),
        "worst": min(accuracies[1:]),
        "decoded": pytest.approx(np.mean(accuracies[1:3])),  # not of lost parity
    }
    assert patterns[3]["decoded_accuracy"] is None
    # 1.5 epochs of 3,500 images; chance is 0.1.
    base, baselines = results["base"]["test_accuracy"], results["baselines"]
    assert base > 0.75
    assert results["summary"]["1"]["mean"] > baselines["zero_fill"]["1"]["mean"]
    for summary in (results["summary"], *baselines.values()):
        # Systematic, so nothing is lost when nothing is missing.
        assert summary["0"]["mean"] == base


def test_running_again_changes_no_number(finished, tmp_path):
    """As if the run had been killed in training, or where it is finished already."""
    before = workdir.read_results(finished)
    params = params_of(finished)
    killed = shutil.copytree(finished, tmp_path / "killed")
    (killed / "results.json").unlink()
    shutil.rmtree(killed / "checkpoints/code/81")
    shutil.rmtree(killed / "checkpoints/no_parity")
    shutil.rmtree(killed / workdir.MEASURED)
    resumed = small_run(killed)
    assert_same(params_of(killed), params)
    assert resumed["timing"]["resumed"]
    assert json.loads(json.dumps(resumed["patterns"])) == before["patterns"]
    assert json.loads(json.dumps(resumed["baselines"])) == before["baselines"]

    after = small_run(finished)
    assert_same(params_of(finished), params)
    for name in ("base", "patterns", "summary", "baselines"):
        assert json.loads(json.dumps(after[name])) == before[name]


def test_loaded_model_reproduces_the_results(finished):
    model = coded_jax.load(finished, devices=1)
    test = data.load("mnist_5k").test
    for pattern in model.results["patterns"]:
        predicted = model.classify(test.images, pattern["lost"])
        accuracy = (np.asarray(predicted) == test.labels).mean()
        assert accuracy == pytest.approx(pattern["accuracy"])


def test_answers_have_a_confidence(finished):
    model = coded_jax.load(finished)
    test = data.load("mnist_5k").test
    answer = model.predict(test.images, lost=[1], abstain_below=0.8)
    sure = np.asarray(answer.confidence)
    classes = np.asarray(model.classify(test.images, lost=[1]))
    # On the whole it is as often right as it is sure, and where it abstains it errs.
    right = classes == test.labels
    assert abs(sure.mean() - right.mean()) < 0.05
    assert right[sure >= 0.8].mean() > right.mean() + 0.02
    expected = np.where(sure < 0.8, -1, classes)
    np.testing.assert_array_equal(answer.classes, expected)


@pytest.mark.parametrize(
    "name, fields",
    [
        ("k", {"k": 3}),
        ("train_images", {"train_images": 3501}),
        ("stages", {"stages": ((1, 5),)}),
    ],
)
def test_what_only_the_data_can_tell_is_refused_before_training(tmp_path, name, fields):
    with refused(name):
        prepare(Config(dataset="mnist_5k", **fields), Places(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_stopped_evaluation_goes_on_where_it_was(finished, tmp_path, monkeypatch):
    folder = shutil.copytree(finished, tmp_path / "run")
    shutil.rmtree(folder / workdir.MEASURED)
    (folder / workdir.RESULTS).unlink()
    studied, study = [], confidence.study
    spied = lambda *a, **options: studied.append(a) or study(*a, **options)
    monkeypatch.setattr(confidence, "study", spied)
    with stopping(lambda: (folder / workdir.MEASURED).exists()):
        with pytest.raises(Interrupted, match="in the evaluation"):
            small_run(folder)
    assert os.listdir(folder / workdir.MEASURED) == ["code_held.json"]
    small_run(folder)
    before, again = map(workdir.read_results, (finished, folder))
    assert len(studied) == 1 + 2  # then those of two baselines
    for name in ("patterns", "patterns_of_baselines", "confidence", "summary"):
        assert again[name] == before[name]
    # What was measured under fewer patterns is not taken.
    more = small_run(folder, dataclasses.replace(SMALL, tried=2))
    assert len(studied) == 3 + 3 and set(more["summary"]) == {"0", "1", "2"}


@pytest.mark.long
def test_resumes_and_serves_on_other_devices(finished, tmp_path):
    config = dataclasses.replace(SMALL, epochs=0.5)
    with stopping(lambda: True), pytest.raises(Interrupted):
        small_run(tmp_path, config)
    prepared = prepare(config, Places(tmp_path, devices=4, mesh=(2, 2)))
    results = experiment.run(prepared, console=quietly()).results
    assert results["timing"]["resumed"]
    assert results["machine"]["mesh"] == {"piece": 2, "data": 2}
    images = data.load("mnist_5k").test.images[:9]
    one, four = (coded_jax.load(finished, devices=count) for count in (1, 4))
    assert four.pipeline.mesh.size == 3
    logits = four.logits(jax.device_put(images, jax.devices()[0]), [0])
    np.testing.assert_allclose(one.logits(images, [0]), logits, rtol=1e-4, atol=1e-4)


FLAGS = [
    "--dataset=mnist_5k",
    "--recipe=systematic",
    "--encoder_width=64",
    "--base_epochs=1.5",
    "--epochs=1.5",
    "--seed=3",
]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Where all runs of this file keep their programs."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def start(cache):
    script = "experiments/run.py"
    return functools.partial(Script, script, *FLAGS, f"--compilation_cache={cache}")


def metrics_of(path):
    """What was logged, without what tells of the machine's speed."""
    text = (path / "metrics.jsonl").read_text()
    return re.sub(r', "images_per_second": [\d.]+', "", text).splitlines()


@pytest.mark.long
def test_kill_9_and_resume_is_bit_for_bit(start, cache, tmp_path):
    """Kills at three moments, one in every phase, then lets the run end."""
    whole = start(f"--workdir={tmp_path / 'whole'}").wait()
    assert whole.returncode == 0, whole.stderr
    for phase in PHASES:
        cut = start(f"--workdir={tmp_path / 'cut'}")
        begun = tmp_path / "cut" / "checkpoints" / phase
        while not any(begun.glob("[0-9]*")) and cut.process.is_alive():
            time.sleep(0.01)
        cut.process.kill()
        killed = cut.wait()
        assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert any(cache.iterdir())
    last = start(f"--workdir={tmp_path / 'cut'}").wait()
    assert last.returncode == 0, last.stderr
    assert "resumed at step" in last.stderr
    assert_same(params_of(tmp_path / "cut"), params_of(tmp_path / "whole"))
    cut, uncut = (workdir.read_results(tmp_path / x) for x in ("cut", "whole"))
    assert cut["patterns"] == uncut["patterns"]
    assert cut["baselines"] == uncut["baselines"]
    assert cut["timing"]["resumed"] and not uncut["timing"]["resumed"]
    lines, whole_lines = (metrics_of(tmp_path / x) for x in ("cut", "whole"))
    assert set(lines) <= set(whole_lines) and len(lines) == len(set(lines))
    table = re.search(r"^ +learned +mean +[\d. ]+$", last.stdout, re.M)
    assert table, last.stdout
    assert {"accuracy.png", "training.png"} <= set(os.listdir(tmp_path / "cut"))


def test_a_search_never_scores_on_the_test_split(tmp_path):
    dataset = data.load("mnist_5k")
    wrong = (dataset.test.labels + 1) % dataset.classes
    test = dataclasses.replace(dataset.test, labels=wrong)
    changes = {"epochs": 0.1, "baselines": (), "evaluated": "validation"}
    prepared = prepare(
        dataclasses.replace(SMALL, **changes),
        Places(tmp_path, devices=1),
        dataset=dataclasses.replace(dataset, test=test),
    )
    results = experiment.run(prepared, console=quietly()).results
    base = results["base"]
    assert base.keys() == {"validation_accuracy", "numbers"}
    assert base["validation_accuracy"] > 0.5
    assert results["summary"]["0"]["mean"] == pytest.approx(base["validation_accuracy"])
    with pytest.raises(ValueError, match="none of a search"):
        stored.read_runs([tmp_path])
