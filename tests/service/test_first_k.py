"""First k of n on devices of this process: stragglers, failures, deadlines, hedging."""

import dataclasses
import threading
import time

import jax
import numpy as np
import pytest

from coded_jax import data
from coded_jax.latency.stragglers import Constant
from coded_jax.runs.build import build_pipeline
from coded_jax.runs.coded_model import compiled_infer
from coded_jax.service import Closed, Overloaded, local, parts, serve
from coded_jax.service.faults import Fault, Faults
from coded_jax.service.local import LocalWorker
from tests.errors import refused
from tests.runs.test_experiment import SMALL
from tests.untrained import untrained_model

NEVER = Constant(600.0)
NOW = Constant(0.0)


class Chosen(Faults):
    """Faults by worker, the same in each request."""

    def __init__(self, *kinds, again=()):
        super().__init__()
        object.__setattr__(self, "kinds", (kinds, again or kinds))

    def of_request(self, number, n, attempt=0):
        return [Fault(0.0, kind) for kind in self.kinds[attempt]]


@pytest.fixture(scope="module")
def images():
    return data.load("mnist_5k").test.images


@pytest.fixture(scope="module")
def model(lenet):
    model = untrained_model(lenet, recipe="systematic", encoder_width=64)
    calibration = {str(lost): {"temperature": 1.0 + lost} for lost in range(2)}
    return model._replace(results={"confidence": calibration, "classes": 10})


def rebuilt(model, **settings):
    """The same base model in other stages, with a code that needs no training."""
    old, config = model.pipeline, dataclasses.replace(SMALL, **settings)
    classes = model.results["classes"]
    pipeline = build_pipeline(config, old.examples, classes, old.mesh)
    params = jax.jit(pipeline.init)(jax.random.key(0))
    return model._replace(pipeline=pipeline, params=params)


def local_service(model, **settings):
    return serve(model, "local", **{"deadline": 300.0, **settings})


def test_a_straggler_is_not_waited_for(model, images):
    slow = Faults(delays=(NOW, NEVER, NOW))
    with local_service(model, faults=slow, patience=600) as service:
        for i in range(5):  # those after the first find it still at work
            few = images[i : i + 1]
            answer = service.submit(few).result()
            assert answer.used == ((0, 2),) and answer.decoded == ((1,),)
            assert answer.classes == model.classify(few, lost=[1])
        losses = service.summary()["workers"][1]["losses"]
        assert losses == {**dict.fromkeys(losses, 0), "late": 5}


@pytest.mark.parametrize("kind, reason", [("raise", "raised"), ("nan", "bad")])
def test_bad_results_are_lost(model, images, kind, reason):
    """Of one worker, each time; the others' are enough."""
    with local_service(model, faults=Chosen(kind, "", "")) as service:
        for i in range(4):
            answer = service.submit(images[i : i + 1]).result()
            assert answer.used == ((1, 2),)
            assert answer.classes == model.classify(images[i : i + 1], lost=[0])
        # Seen where it came before the others were enough.
        losses = service.summary()["workers"][0]["losses"]
        assert 1 <= losses[reason] + losses["late"] <= 8
        assert losses["died"] == losses["hung"] == 0


def test_too_few_are_a_degraded_answer(model, images):
    few = Chosen("", "raise", "raise")
    with local_service(model, faults=few, shortfall="degrade") as service:
        answer = service.submit(images[:1]).result()
        assert answer.degraded and answer.used == ((0,),)
        assert answer.decoded == ((1,),)
        available = np.array([[True], [False], [False]])
        logits = compiled_infer(
            model.pipeline, model.frozen, model.params, images[:1], available
        )
        assert answer.classes == logits.argmax(-1)
        # With the temperature of one lost result, the most that the run has tried.
        temperature = model.results["confidence"]["1"]["temperature"]
        expected = jax.nn.softmax(logits / temperature).max(-1)
        np.testing.assert_allclose(answer.confidence, expected, rtol=1e-3)
        assert service.summary()["requests"]["degraded"] == 1


def test_images_may_be_changed_once_they_are_submitted(model, images):
    with local_service(model, in_flight=1) as service:
        buffer, futures = np.empty_like(images[:1]), []
        for i in range(30):
            buffer[:] = images[i]
            futures.append(service.submit(buffer, without=[0]))
        classes = [int(future.result().classes[0]) for future in futures]
    assert classes == model.classify(images[:30], lost=[0]).tolist()


@pytest.mark.parametrize("joined", [None, 4])
def test_requests_of_any_size(model, images, joined):
    """Up to a limit, with two sizes compiled; each has its own answer."""
    settings = {"batches": (1, 4), "largest": 9, "max_batch": joined, "max_wait": 0.02}
    with local_service(model, **settings) as service:
        sizes = [9, 1, 2, 7, 3, 1, 5, 8, 1, 4]
        starts = np.cumsum([0, *sizes])
        futures = [
            service.submit(images[a : a + b], without=[0], deadline=float("inf"))
            for a, b in zip(starts, sizes, strict=False)
        ]
        expected = model.logits(images[: sum(sizes)], [0])
        for a, b, future in zip(starts, sizes, futures, strict=False):
            answer = future.result()
            np.testing.assert_allclose(answer.logits, expected[a : a + b], atol=1e-4)
            assert len(answer.classes) == len(answer.confidence) == b
        summary = service.summary()
        assert summary["requests"]["answered"] == len(sizes)
        assert summary["images"] == sum(sizes)
        parts = sum(-(-size // 4) for size in sizes)
        batches = summary["batches"]
        assert batches == parts if joined is None else batches <= parts
        with pytest.raises(ValueError, match="images: 10 given, at most 9 accepted"):
            service.submit(images[:10])


def test_a_closed_service_leaves_no_thread(model, images, monkeypatch):
    """One that frees arrays while the interpreter ends would abort the program."""
    compute, before = LocalWorker._compute, set(threading.enumerate())

    def slow(self, call, future, sent):
        if call.piece.index == 0:
            time.sleep(0.5)
        compute(self, call, future, sent)

    monkeypatch.setattr(local, "GRACE", 300.0)
    service = local_service(model)
    monkeypatch.setattr(LocalWorker, "_compute", slow)
    service.submit(images[:1]).result()
    service.close()
    assert not set(threading.enumerate()) - before


def test_a_worker_that_failed_has_the_parity_piece_of_the_next_stage(model, images):
    chain = dict(code="addition", stages=((1, 1), (3, 3)))
    failing = Chosen("raise", "", "")
    for moves, decoded in ((False, ((0,), (0,))), (True, ((0,), ()))):
        chained = rebuilt(model, **chain, parity_moves=moves)
        with local_service(chained, faults=failing) as service:
            answer = service.submit(images[:1]).result()
        assert answer.decoded == decoded and answer.used == ((1, 2), (1, 2))
        assert answer.classes == chained.classify(images[:1], lost=[0])


def test_a_second_tail_answers_where_a_worker_was_lost(model, images):
    old = model.pipeline
    config = dataclasses.replace(SMALL, tail="tuned", supervision=1.0)
    pipeline = build_pipeline(config, old.examples, 10, old.mesh)
    rng = np.random.default_rng(0)
    draw = lambda x: rng.normal(size=x.shape).astype(x.dtype)
    own = jax.tree.map(draw, jax.eval_shape(pipeline.tail_copy.init))
    tuned = model._replace(pipeline=pipeline, params=(*model.params, own))
    tried = images[:20]
    for lost in (0, 2):  # a data piece, and parity
        kinds = ["raise" if i == lost else "" for i in range(3)]
        with local_service(tuned, faults=Chosen(*kinds)) as service:
            assert service.model.pipeline.tail_copy.settled
            answers = [service.submit(x[None]).result().classes for x in tried]
        expected = tuned.classify(tried, lost=[lost])
        np.testing.assert_array_equal(np.concatenate(answers), expected)
        same = np.array_equal(expected, model.classify(tried, lost=[lost]))
        assert same == (lost == 2)


@pytest.mark.parametrize("kind", ["killed", "hangs"])
def test_a_lost_worker_joins_again(model, images, kind):
    with local_service(model, faults=Faults(), patience=1.0) as service:
        worker = service.engine.pool.workers[1]
        if kind == "killed":
            worker.kill()
        else:
            worker.faults = Faults(delays=(NEVER,))
        end = time.monotonic() + 300
        while service.summary()["workers"][1]["restarts"] == 0:
            answer = service.submit(images[:1]).result()
            lost = sorted({0, 1, 2} - {*answer.used[0]})
            assert answer.classes == model.classify(images[:1], lost=lost)
            assert time.monotonic() < end
        worker.faults = Faults()
        answer = service.submit(images[:1], without=[0]).result()  # waits for it
        assert answer.used == ((1, 2),)
        assert answer.classes == model.classify(images[:1], lost=[0])


def test_a_full_queue(model, images):
    slow = Faults(delays=(NEVER,))
    with local_service(
        model, faults=slow, in_flight=1, queue=1, patience=600
    ) as service:
        first, second = (service.submit(images[:1]) for _ in range(2))
        with pytest.raises(Overloaded):
            service.submit(images[:1], block=False)
        with pytest.raises(Overloaded):
            service.submit(images[:1], deadline=0.1)
        assert service.summary()["requests"]["overload"] == 2
        closing = threading.Thread(target=service.close)
        closing.start()
        with pytest.raises(Closed):
            first.result(timeout=600)
        assert second.cancelled()
        closing.join()
        with pytest.raises(Closed):
            service.submit(images[:1], block=False)


def test_one_compilation_serves_all_patterns(model, images):
    with local_service(model) as service:
        before = parts.decode_stage._cache_size(), parts.share._cache_size()
        for lost in [(), (0,), (1,), (2,)]:
            service.submit(images[:1], without=lost).result()
        assert (parts.decode_stage._cache_size(), parts.share._cache_size()) == before


@pytest.mark.parametrize(
    "name, settings",
    [
        ("engine", {"engine": "mpi"}),
        ("shortfall", {"shortfall": "guess"}),
        ("deadline", {"deadline": -1.0}),
        ("address", {"address": "localhost:1"}),
        ("batches", {"batches": (0,)}),
        ("hedge_after", {"hedge_after": -1.0}),
    ],
)
def test_wrong_settings_are_refused(model, name, settings):
    with refused(name):
        serve(model, **settings).close()
    with pytest.raises(TypeError, match="speed"):
        serve(model, speed=1)
