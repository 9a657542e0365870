"""The service around an engine: calibration in closed form, counts of its metrics."""

import jax
import numpy as np
import pytest

from coded_jax.runs.build import build_pipeline
from coded_jax.runs.coded_model import CodedModel
from coded_jax.runs.config import Config
from coded_jax.serving.engine import Inference
from coded_jax.serving.service import Service, respond

LOST = [(), (0,), (1,), (2,), (1, 2)]
LOGITS = ((0.0, np.log(16)), (np.log(81), 0.0))


@pytest.fixture(scope="module")
def model(lenet):
    """With temperatures of 2 for whole answers, and of 4 for decoded ones."""
    base, variables = lenet
    pipeline = build_pipeline(
        Config(code="mds"), (28, 28, 1), 10, (0.0,), (1.0,), base=base
    )
    confidence = {"0": {"temperature": 2.0}, "1": {"temperature": 4.0}}
    params = pipeline.init(jax.random.key(0))
    results = {"confidence": confidence}
    return CodedModel(pipeline, variables, params, results)


def inference(lost, logits=LOGITS):
    available = np.ones((1, 3, 1), bool)
    available[0, list(lost)] = False
    used = (tuple(sorted({0, 1, 2} - {*lost})),)
    seconds = {"encode": 0.001, "wait": 0.002, "decode": 0.003}
    return Inference(np.asarray(logits, "f"), available, used, len(lost) > 1, seconds)


@pytest.mark.parametrize("lost", LOST)
def test_probabilities_are_those_of_the_temperature(model, lost):
    """16 to 1 is 4 to 1 at a temperature of 2, and 2 to 1 at one of 4."""
    response = respond(model, inference(lost))
    decoded = bool({0, 1} & {*lost})
    a, b = (2, 3) if decoded else (4, 9)
    expected = [[1 / (1 + a), a / (1 + a)], [b / (1 + b), 1 / (1 + b)]]
    np.testing.assert_allclose(response.probabilities, expected, rtol=1e-6)
    np.testing.assert_allclose(response.confidence, np.max(expected, -1), rtol=1e-6)
    assert response.classes.tolist() == [1, 0]
    assert response.decoded == (tuple(i for i in lost if i < 2),)
    assert response.arrived == response.used == inference(lost).used
    assert response.degraded == (len(lost) > 1)


class Engine:
    """Loses what it is told not to use."""

    pool = None

    def infer(self, number, images, end, without=()):
        if number == 3:
            raise RuntimeError("no")
        return inference(without, np.zeros((len(images), 2)))

    def warm_up(self, images):
        assert images.shape == (1, 28, 28, 1)

    def close(self):
        pass


@pytest.mark.parametrize(
    "options, message",
    [
        ({"without": 1}, r"without: 1 given, some of 0\.\.2"),
        ({"without": (3,)}, r"without: \(3,\) given, some of 0\.\.2"),
        ({"without": ([0],)}, r"without: \(\[0\],\) given, some of 0\.\.2"),
        ({"deadline": "1"}, "deadline: '1' given, more than 0"),
        ({"deadline": 0}, "deadline: 0 given, more than 0"),
        ({"deadline": float("nan")}, "deadline: nan given, more than 0"),
    ],
)
def test_wrong_requests_are_refused(model, options, message):
    with Service(model, Engine()) as service:
        service.warm_up()
        with pytest.raises(ValueError, match=f"^{message}"):
            service.submit(np.zeros((1, 28, 28, 1), np.uint8), **options)


def test_requests_are_counted_by_their_end(model):
    images = np.zeros((1, 28, 28, 1), np.uint8)
    with Service(model, Engine(), in_flight=1) as service:
        service.warm_up()
        futures = [service.submit(images, without=lost) for lost in (*LOST[:3], ())]
        totals = [future.result().seconds["total"] for future in futures[:3]]
        assert isinstance(futures[3].exception(), RuntimeError)
        summary = service.summary()
    ends = summary["requests"]
    assert ends == {**dict.fromkeys(ends, 0), "answered": 3, "error": 1}
    assert summary["decoded"] == 2 / 3
    assert summary["seconds"]["p50"] == np.median(totals)
    phases = summary["phases"]
    assert phases.pop("total") == pytest.approx(np.mean(totals))
    assert phases.pop("queue") > 0
    assert phases == pytest.approx({"encode": 0.001, "wait": 0.002, "decode": 0.003})
    assert summary["workers"] == []
