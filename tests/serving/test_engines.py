"""What all engines promise: the local one, Ray's, and the SPMD program."""

import dataclasses
import importlib.util

import jax
import numpy as np
import pytest

from coded_jax import data, serving
from coded_jax.codes import erasures
from coded_jax.runs.coded_model import compiled_infer
from tests.parameters import LONG
from tests.runs.test_experiment import SMALL, small_run

CHAIN = dataclasses.replace(SMALL, code="mds", stages=((1, 1), (3, 3)), baselines=())


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """A run with two coded stages, each a convolution with a code that is exact."""
    path = tmp_path_factory.mktemp("runs") / "chain"
    small_run(path, CHAIN)
    return path


@pytest.fixture(
    scope="module",
    params=[
        *[("local", 1), ("local", 2), ("spmd", 2), ("ray", 1)],
        *[pytest.param(served, marks=LONG) for served in (("spmd", 1), ("ray", 2))],
    ],
    ids=str,
)
def served(request, finished, chain):
    """A service of an engine, for a run with one or two coded stages."""
    engine, stages = request.param
    if engine == "ray":
        if importlib.util.find_spec("ray") is None:
            pytest.skip("Ray is not installed")
    run = finished if stages == 1 else chain
    with serving.serve(run, engine, batches=(1, 100), deadline=600) as service:
        yield service


@pytest.fixture(scope="module")
def images():
    return data.load("mnist_5k").test


def direct(service, images, lost):
    """Probabilities by the program that evaluated the run, on one device."""
    model = service.model
    logits = compiled_infer(
        model.pipeline._replace(mesh=None),
        *jax.device_put((model.frozen, model.params), jax.devices()[0]),
        images,
        erasures.available(lost, model.pipeline.n),
    )
    # Decoded or not, all results of this run are lost alike often: l of n.
    confidence = model.results["confidence"]
    decoded = any(i < model.pipeline.k for i in lost)
    temperature = confidence[str(len(lost)) if decoded else "0"]["temperature"]
    return np.asarray(jax.nn.softmax(logits / temperature))


def test_answers_are_those_of_a_direct_computation(served, images):
    n = served.model.pipeline.n
    for i in range(3):
        few = images.images[i : i + 1]
        answer = served.submit(few).result()
        if len({*answer.used}) == 1:  # the same results in every stage
            lost = sorted({*range(n)} - {*answer.used[0]})
            expected = direct(served, few, lost)
            np.testing.assert_allclose(answer.probabilities, expected, atol=1e-4)
        assert not answer.degraded
        assert answer.confidence == answer.probabilities.max(-1)
        assert answer.classes == answer.probabilities.argmax(-1)
        assert answer.classes.dtype == np.int32


def test_whole_batches_are_those_of_a_direct_computation(served, images):
    """From whichever results were the first, in each stage."""
    model = served.model
    for start in range(0, len(images.labels), 100):
        few = images.images[start : start + 100]
        answer = served.submit(few).result()
        n = model.pipeline.n
        available = np.zeros((len(answer.arrived), n, 1), bool)
        for s, pieces in enumerate(answer.arrived):
            available[s, list(pieces)] = True
        logits = compiled_infer(
            model.pipeline._replace(mesh=None),
            *jax.device_put((model.frozen, model.params), jax.devices()[0]),
            few,
            available,
        )
        assert (answer.classes == logits.argmax(-1)).mean() >= 0.99


@pytest.mark.parametrize("lost", [(0,), (1,), (2,)])
def test_accuracy_is_that_of_the_evaluation(served, images, lost):
    """Of the whole test split, with those workers out of use."""
    pipeline, total = served.model.pipeline, len(images.labels)
    rest = {*range(pipeline.n)} - {*lost}
    correct = 0
    for start in range(0, total, 100):
        batch = slice(start, start + 100)
        future = served.submit(images.images[batch], without=lost)
        answer = future.result()
        assert all({*used} == rest for used in answer.used)  # only k are left
        data_lost = tuple(i for i in lost if i < pipeline.k)
        assert answer.decoded == (data_lost,) * len(answer.used)
        correct += (answer.classes == images.labels[batch]).sum()
    patterns = served.model.results["patterns"]
    expected = [p["accuracy"] for p in patterns if tuple(p["lost"]) == lost][0]
    assert abs(correct / total - expected) <= 1 / total


def test_requests_at_once_get_their_own_answers(served, images):
    some = [images.images[i : i + 1] for i in range(24)]
    without = [(i % 3,) for i in range(24)]
    futures = [
        served.submit(few, without=lost)
        for few, lost in zip(some, without, strict=True)
    ]
    for few, lost, future in zip(some, without, futures, strict=True):
        expected = direct(served, few, lost)
        probabilities = future.result().probabilities
        np.testing.assert_allclose(probabilities, expected, atol=1e-4)


def test_too_few_workers_are_an_error(served, images):
    with pytest.raises(serving.NotEnoughResults, match="enough"):
        served.submit(images.images[:1], without=(0, 1)).result()


def test_times_and_counts(served, images):
    before = served.summary()["requests"]
    answer = served.submit(images.images[:1]).result()
    assert answer.seconds.keys() == {"queue", "encode", "wait", "decode", "total"}
    phases = {**answer.seconds}
    total = phases.pop("total")
    assert 0 < sum(phases.values()) <= total
    with pytest.raises(serving.NotEnoughResults):
        served.submit(images.images[:1], without=(0, 1, 2)).result()
    summary = served.summary()
    assert summary["requests"]["answered"] == before["answered"] + 1
    assert summary["requests"]["shortfall"] == before["shortfall"] + 1
    assert summary["seconds"]["p50"] <= summary["seconds"]["p99.9"]
    assert 0 <= summary["decoded"] <= 1


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"images": np.zeros((1, 28, 28, 1), np.float32)}, "images: float32"),
        ({"images": np.zeros((1, 27, 28, 1), np.uint8)}, "images: uint8"),
        ({"deadline": 0.0}, "deadline: 0.0 given"),
        ({"deadline": float("nan")}, "deadline: nan given"),
        ({"without": (3,)}, "without: "),
    ],
)
def test_wrong_requests_are_refused_at_once(served, images, wrong, message):
    request = {"images": images.images[:1], **wrong}
    with pytest.raises(ValueError, match=message):
        served.submit(**request)
