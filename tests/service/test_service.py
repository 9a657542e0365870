"""The service around an engine: calibration in closed form, counts of its metrics."""

import threading
import time
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from coded_jax.inference.pipeline import Examples
from coded_jax.runs.build import build_pipeline
from coded_jax.runs.coded_model import CodedModel
from coded_jax.runs.config import Config
from coded_jax.service.config import ServeConfig
from coded_jax.service.engine import Inference
from coded_jax.service.gathering import NotEnoughResults
from coded_jax.service.requests import respond
from coded_jax.service.service import AlreadyReloading, Service
from tests.errors import refused

LOST = [(), (0,), (1,), (2,), (1, 2)]
LOGITS = ((0.0, np.log(16)), (np.log(81), 0.0))


@pytest.fixture(scope="module")
def model(lenet):
    """With temperatures of 2 for whole answers, and of 4 for decoded ones."""
    base, variables = lenet
    pipeline = build_pipeline(
        Config(code="mds"), Examples((28, 28, 1), (0.0,), (1.0,)), 10, base=base
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

    pool = SimpleNamespace(status=lambda: [])
    supervisor = None

    def __init__(self, model):
        self.model = model

    def obstacle(self):
        return None

    def infer(self, number, images, end, without=()):
        if number == 3:
            raise RuntimeError("no")
        return inference(without, np.zeros((len(images), 2)))

    def warm_up(self, batch):
        assert batch == 1

    def close(self):
        pass


def test_requests_are_counted_by_their_end(model):
    images = np.zeros((1, 28, 28, 1), np.uint8)
    with Service(Engine(model), ServeConfig(in_flight=1)) as service:
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


class Short(Engine):
    """Has too few results until a time; notes the deadlines it is given."""

    def __init__(self, model, until, degrade):
        super().__init__(model)
        self.until, self.degrade, self.ends = until, degrade, []

    def infer(self, number, images, end, without=()):
        self.ends.append(end)
        short = end < self.until
        if short and not self.degrade:
            raise NotEnoughResults("too few")
        answer = inference(without, np.zeros((len(images), 2)))
        return answer._replace(degraded=short)

    def obstacle(self):
        return "a worker is down"


@pytest.mark.parametrize("degrade", [False, True])
def test_requests_computed_together_have_their_own_deadlines(model, degrade):
    """The one that cannot wait ends first; the others are computed again."""
    images = np.zeros((1, 28, 28, 1), np.uint8)
    engine = Short(model, time.monotonic() + 500, degrade)
    config = ServeConfig(in_flight=1, max_batch=3, max_wait=600.0)
    with Service(engine, config) as service:
        service._batches.add(3)
        first, *others = [service.submit(images, s) for s in (100, 1000, 2000)]
        if degrade:
            assert first.result().degraded
        else:
            with pytest.raises(NotEnoughResults, match="too few; a worker is down"):
                first.result()
        assert not any(future.result().degraded for future in others)
        ends = service.summary()["requests"]
    assert len(engine.ends) == 2 and engine.ends[0] < engine.ends[1]
    counted = "degraded" if degrade else "shortfall"
    assert ends == {**dict.fromkeys(ends, 0), "answered": 2, counted: 1}


class Gated(Engine):
    """Computes when it is let; notes how many images it was given."""

    def __init__(self, model, classes=2):
        super().__init__(model)
        self.begun, self.go = threading.Event(), threading.Event()
        self.classes, self.sizes, self.closed = classes, [], False

    def infer(self, number, images, end, without=()):
        self.begun.set()
        self.go.wait()
        assert not self.closed
        self.sizes.append(len(images))
        return inference(without, np.zeros((len(images), self.classes)))

    def close(self):
        self.closed = True
        self.go.set()


def test_a_divided_request_has_one_model(model):
    """Also the parts that are computed after another one, for more classes, is up."""
    old, new = Gated(model), Gated(model, classes=7)
    new.go.set()
    start = lambda model: new
    with Service(old, ServeConfig(in_flight=1), start) as service:
        service.warm_up()
        divided = service.submit(np.zeros((3, 28, 28, 1), np.uint8))
        old.begun.wait()
        reload = threading.Thread(target=service.reload, args=(model,))
        reload.start()
        while service.engine is not new:
            time.sleep(0.001)
        with pytest.raises(AlreadyReloading):
            service.reload(model)
        after = service.submit(np.zeros((2, 28, 28, 1), np.uint8))
        old.go.set()
        assert divided.result().logits.shape == (3, 2)
        assert after.result().logits.shape == (2, 7)
        reload.join()
        assert old.sizes == [1, 1, 1] and new.sizes == [1, 1] and old.closed


def test_a_service_whose_requests_all_fail_does_not_look_ready(model, monkeypatch):
    """It looks as long as none is answered; requests are tried nevertheless."""

    class Broken(Engine):
        answers = False

        def infer(self, number, images, end, without=()):
            if not self.answers:
                raise NotEnoughResults("two of three workers raise")
            return inference(without, np.zeros((len(images), 2)))

    engine, images = Broken(model), np.zeros((1, 28, 28, 1), np.uint8)
    with Service(engine) as service:
        service.warm_up()
        for _ in range(20):  # it is their deadlines that are too short
            assert service.submit(images, deadline=5.0).exception() is not None
        assert service.obstacle() is None
        for _ in range(10):
            assert service.obstacle() is None
            assert service.submit(images).exception() is not None
        expected = "the last 10 requests had no answer: two of three workers raise"
        assert service.obstacle() == service.summary()["obstacle"] == expected
        with monkeypatch.context() as context:
            context.setattr("coded_jax.service.service.DOUBTS", (10, 0.0))
            assert service.obstacle() is None  # for a while only
        engine.answers = True
        assert service.submit(images, block=False).exception() is None
        assert service.obstacle() is None


def test_wrong_requests_are_refused(model):
    examples = model.pipeline.examples._replace(mean=None, std=None)
    floats = model._replace(pipeline=model.pipeline._replace(examples=examples))
    images = np.zeros((1, 28, 28, 1), np.float32)
    with Service(Engine(floats)) as service:
        service.warm_up()
        with refused("deadline"):
            service.submit(images, deadline=0)
        for value in (np.nan, np.inf):  # would be held against the workers
            images[0, 3, 3] = value
            with refused("images"):
                service.submit(images)


def test_a_model_that_does_not_start_changes_nothing(model):
    def start(model):
        raise RuntimeError("no")

    with Service(Engine(model), start=start) as service:
        with pytest.raises(RuntimeError, match="^no$"):
            service.reload(model)
        taller = build_pipeline(
            Config(code="mds"), Examples((32, 28, 1), (0.0,), (1.0,)), 10
        )
        with refused("model"):
            service.reload(model._replace(pipeline=taller))
