"""What all engines promise: the local one, and Ray's."""

import importlib.util

import jax
import numpy as np
import pytest

from coded_jax import data
from coded_jax.codes import erasures
from coded_jax.runs.coded_model import compiled_infer
from coded_jax.service import NotEnoughResults, serve
from tests.parameters import LONG
from tests.untrained import untrained_model

TEMPERATURES = {str(lost): {"temperature": 1.0 + lost} for lost in range(2)}
SYSTEMATIC = {"recipe": "systematic", "encoder_width": 64}
STAGES = {
    1: SYSTEMATIC,
    2: {"code": "mds", "stages": ((1, 1), (3, 3))},
    "convolutions": {"code": "mds", "split": "convolution"},
}


@pytest.fixture(
    scope="module",
    params=[
        *[("local", 1), ("local", 2), ("local", "convolutions")],
        pytest.param(("ray", 2), marks=LONG),
    ],
    ids=str,
)
def served(request, lenet):
    """A service of an engine, for a model with one coded stage, or several."""
    engine, stages = request.param
    if engine == "ray" and importlib.util.find_spec("ray") is None:
        pytest.skip("Ray is not installed")
    model = untrained_model(lenet, **STAGES[stages])
    model = model._replace(results={"confidence": TEMPERATURES})
    with serve(model, engine, batches=(1, 100), deadline=600) as service:
        yield service


@pytest.fixture(scope="module")
def images():
    return data.load("mnist_5k").test.images


def direct(service, images, lost):
    """Probabilities by the program that evaluates runs, on one device."""
    model = service.model
    logits = compiled_infer(
        model.pipeline._replace(mesh=None),
        *jax.device_put((model.frozen, model.params), jax.devices()[0]),
        images,
        erasures.available(lost, model.pipeline.n),
    )
    # Decoded or not, all results of a model are lost alike often: l of n.
    decoded = any(i < model.pipeline.k for i in lost)
    temperature = TEMPERATURES[str(len(lost)) if decoded else "0"]["temperature"]
    return np.asarray(jax.nn.softmax(logits / temperature))


@pytest.mark.parametrize("lost", [(0,), (1,), (2,)])
def test_answers_are_those_of_a_direct_computation(served, images, lost):
    """Of a whole batch, with those workers out of use."""
    answer = served.submit(images[:100], without=lost).result()
    expected = direct(served, images[:100], lost)
    np.testing.assert_allclose(answer.probabilities, expected, atol=1e-4)
    np.testing.assert_array_equal(answer.classes, answer.probabilities.argmax(-1))
    np.testing.assert_array_equal(answer.confidence, answer.probabilities.max(-1))
    assert not answer.degraded and answer.classes.dtype == np.int32
    rest = {0, 1, 2} - {*lost}
    assert all({*used} == rest for used in answer.used)  # only k are left
    data_lost = tuple(i for i in lost if i < 2)
    assert answer.decoded == (data_lost,) * len(answer.used)
    phases = {**answer.seconds}
    total = phases.pop("total")
    assert phases.keys() == {"queue", "encode", "wait", "decode"}
    assert 0 < sum(phases.values()) <= total


def test_requests_at_once_get_their_own_answers(served, images):
    some = [images[i : i + 1] for i in range(24)]
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
    with pytest.raises(NotEnoughResults, match="enough"):
        served.submit(images[:1], without=(0, 1)).result()
