"""First k of n on devices of this process: stragglers, failures, deadlines, hedging."""

import dataclasses
import threading
import time

import jax
import numpy as np
import pytest

import coded_jax
from coded_jax import codes, data, serving
from coded_jax.latency.stragglers import Constant
from coded_jax.runs.build import build_pipeline
from coded_jax.serving import faults, parts
from coded_jax.serving.faults import Faults
from coded_jax.serving.local import LocalWorker
from coded_jax.types import CodeShape
from tests.pipelines import untrained
from tests.runs.test_experiment import SMALL

NEVER = Constant(60.0)
NOW = Constant(0.0)


@pytest.fixture(scope="module")
def images():
    return data.load("mnist_5k").test.images


@pytest.fixture(scope="module")
def model(finished):
    return coded_jax.load(finished, devices=1)


def variant(model, code):
    """The same run with a code that needs no training."""
    pipeline = model.pipeline.with_codes(lambda shape, _: untrained(code, shape))
    params = pipeline.init(jax.random.key(0))
    return model._replace(pipeline=pipeline, params=params)


def rebuilt(model, **settings):
    """The same base model in other stages, with a code that needs no training."""
    old, config = model.pipeline, dataclasses.replace(SMALL, **settings)
    sizes = model.image_shape, model.results["classes"]
    pipeline = build_pipeline(config, *sizes, old.mean, old.std, old.mesh)
    params = pipeline.init(jax.random.key(0))
    return model._replace(pipeline=pipeline, params=params)


def serve(model, **settings):
    return serving.serve(model, "local", **{"deadline": 30.0, **settings})


@pytest.mark.parametrize(
    "name, few, enough",
    [
        ("mds", [(0,), (2, 3)], [(0, 1, 2), (0, 4, 5), (3, 4, 5)]),
        ("berrut", [(0, 1)], [(0, 1, 2), (1, 3, 5)]),
        # The queries of 3 pieces in 2 copies: 0 1 2 0 1 2.
        ("replication", [(0, 1), (0, 3, 1, 4)], [(0, 1, 2), (3, 4, 5), (0, 4, 2)]),
        ("uncoded", [(0, 1), (0, 1, 3, 4, 5)], [(0, 1, 2)]),
        ("zero_fill", [(0, 1, 3, 4, 5)], [(0, 1, 2)]),
        ("mean_fill", [(0, 1, 3)], [(0, 1, 2)]),
    ],
)
def test_when_results_are_enough(name, few, enough):
    code = untrained(name, CodeShape(3, 3, (8, 8, 1), (2, 2, 4)))
    assert not any(parts.enough(code, 3, arrived) for arrived in few)
    assert all(parts.enough(code, 3, arrived) for arrived in enough)
    assert len(parts.sent(code, 3, 6)) == (3 if code.blank else 6)


def test_a_straggler_is_not_waited_for(model, images):
    slow = Faults(delays=(NOW, NEVER, NOW))
    with serve(model, faults=slow, patience=600) as service:
        for i in range(5):  # those after the first find it still at work
            few = images[i : i + 1]
            answer = service.submit(few).result()
            assert answer.used == ((0, 2),) and answer.decoded == ((1,),)
            assert answer.classes == model.classify(few, lost=[1])
        losses = service.summary()["workers"][1]["losses"]
        assert losses == {**dict.fromkeys(losses, 0), "late": 5}


def test_what_a_straggler_brings_late_is_not_taken_for_another_answer(model, images):
    slow = Faults(delays=(NOW, Constant(0.05), NOW))
    with serve(model, faults=slow) as service:
        found = [service.submit(images[i : i + 1]) for i in range(60)]
        for i, future in enumerate(found):
            answer = future.result()
            lost = sorted({0, 1, 2} - {*answer.used[0]})
            assert answer.classes == model.classify(images[i : i + 1], lost=lost)


@pytest.mark.parametrize("kind, why", [("exceptions", "raised"), ("nans", "bad")])
def test_bad_results_are_lost(model, images, kind, why, monkeypatch):
    """Of one worker, each time; the others' are enough."""
    bad = {"exceptions": "raise", "nans": "nan"}[kind]
    monkeypatch.setattr(
        Faults,
        "of_request",
        lambda self, number, n: [
            faults.Fault(0.0, bad if i == 0 else "") for i in range(n)
        ],
    )
    with serve(model, faults=Faults()) as service:
        for i in range(4):
            answer = service.submit(images[i : i + 1]).result()
            assert answer.used == ((1, 2),)
            assert answer.classes == model.classify(images[i : i + 1], lost=[0])
        # Seen where it came before the others were enough.
        losses = service.summary()["workers"][0]["losses"]
        assert 1 <= losses[why] + losses["late"] <= 8
        assert losses["died"] == losses["hung"] == 0


@pytest.mark.parametrize("kind", ["exceptions", "nans"])
def test_failures_of_all_end_the_request_before_its_deadline(model, images, kind):
    with serve(model, faults=Faults(**{kind: 1.0}), deadline=600) as service:
        with pytest.raises(serving.NotEnoughResults, match=r"results \[\] of 3"):
            service.submit(images[:1]).result(timeout=60)


@pytest.mark.parametrize("shortfall", ["error", "degrade"])
def test_too_few_by_the_deadline(model, images, shortfall):
    slow = Faults(delays=(NOW, NEVER, NEVER))
    with serve(model, faults=slow, shortfall=shortfall, patience=600) as service:
        future = service.submit(images[:1], deadline=0.5)
        if shortfall == "error":
            with pytest.raises(serving.NotEnoughResults, match=r"results \[0\] of 3"):
                future.result()
            return
        answer = future.result()
        assert answer.degraded and answer.used == ((0,),)
        assert answer.decoded == ((1,),)
        available = np.array([[True], [False], [False]])
        logits = coded_jax.serving.compiled_infer(
            model.pipeline, model.frozen, model.params, images[:1], available
        )
        assert answer.classes == logits.argmax(-1)
        # With the temperature of one lost result, the most that the run has tried.
        temperature = model.results["confidence"]["1"]["temperature"]
        expected = jax.nn.softmax(logits / temperature).max(-1)
        np.testing.assert_allclose(answer.confidence, expected, rtol=1e-3)
        assert service.summary()["requests"]["degraded"] == 1


def test_without_any_result_there_is_no_answer(model, images):
    slow = Faults(delays=(NEVER,))
    with serve(model, faults=slow, shortfall="degrade", patience=600) as service:
        with pytest.raises(serving.NotEnoughResults):
            service.submit(images[:1], deadline=0.3).result()


def test_uncoded_never_answers_without_a_piece(model, images):
    slow = Faults(delays=(NOW, NEVER, NOW))
    plain = variant(model, "uncoded")
    with serve(plain, faults=slow, shortfall="degrade", patience=600) as service:
        with pytest.raises(serving.NotEnoughResults):
            service.submit(images[:1], deadline=0.3).result()
    with serve(plain) as service:
        answer = service.submit(images[:1]).result()
        assert answer.used == ((0, 1),) and not any(answer.decoded)


def test_zero_fill_is_a_degraded_answer(model, images):
    slow = Faults(delays=(NOW, NEVER, NOW))
    plain = variant(model, "zero_fill")
    with serve(plain, faults=slow, shortfall="degrade", patience=600) as service:
        answer = service.submit(images[:1], deadline=0.5).result()
        assert answer.degraded
        assert answer.classes == plain.classify(images[:1], lost=[1])


def test_a_missing_piece_is_sent_again(model, images):
    """Both times to a worker that is slow with what it is given first only."""
    plain = variant(model, "uncoded")
    slow = Faults(delays=(NOW, NEVER, NOW), stragglers=None)
    with serve(plain, faults=slow, hedge_after=0.05, patience=600) as service:
        for i in range(3):
            answer = service.submit(images[i : i + 1]).result()
            assert answer.used == ((0,),)  # both pieces are of worker 0
            assert answer.classes == plain.classify(images[i : i + 1])


def test_a_piece_that_failed_is_sent_again(model, images, monkeypatch):
    """Worker 0 raises at first: worker 1, which has finished, computes its piece."""
    plain = variant(model, "uncoded")
    bad = lambda i, number: "raise" if i == 0 and number < 100 else ""
    monkeypatch.setattr(
        Faults,
        "of_request",
        lambda self, number, n: [faults.Fault(0.0, bad(i, number)) for i in range(n)],
    )
    with serve(plain, faults=Faults(), hedge_after=0.02) as service:
        answer = service.submit(images[:1]).result()
        assert answer.used == ((1,),)
        assert answer.classes == plain.classify(images[:1])
        with pytest.raises(serving.NotEnoughResults):  # nobody is there to take it over
            service.submit(images[:1], without=[1]).result(timeout=20)


def test_replicas(model, images):
    """Pieces 0 1 0 on 3 workers: of the first piece one copy is enough."""
    plain = variant(model, "replication")
    with serve(plain, faults=Faults(delays=(NEVER, NOW, NOW)), patience=600) as service:
        answer = service.submit(images[:1]).result()
        assert answer.used == ((1, 2),) and not any(answer.decoded)
        assert answer.classes == plain.classify(images[:1])


def test_images_may_be_changed_once_they_are_submitted(model, images):
    with serve(model, in_flight=1) as service:
        buffer, futures = np.empty_like(images[:1]), []
        for i in range(30):
            buffer[:] = images[i]
            futures.append(service.submit(buffer, without=[0]))
        found = [int(future.result().classes[0]) for future in futures]
    assert found == model.classify(images[:30], lost=[0]).tolist()


def test_other_batches_are_refused(model, images):
    with serve(model) as service:
        with pytest.raises(ValueError, match=r"a batch of 3 given, one of \[1\]"):
            service.submit(images[:3])
        service.warm_up(3)
        answer = service.submit(images[:3], without=[0], deadline=float("inf")).result()
        assert answer.classes.tolist() == model.classify(images[:3], [0]).tolist()


def test_what_compiles_for_long_does_not_hang(model, monkeypatch):
    """The first computation takes longer than the patience."""
    seen = set()
    compute = LocalWorker._compute

    def slow(self, call, ended):
        if self not in seen:
            seen.add(self)
            time.sleep(0.5)
        return compute(self, call, ended)

    monkeypatch.setattr(LocalWorker, "_compute", slow)
    with serve(model, patience=0.2) as service:
        workers = service.summary()["workers"]
    assert len(seen) == 3
    assert all(worker["restarts"] == 0 for worker in workers)


def test_a_closed_service_leaves_no_thread(model, images, monkeypatch):
    """One that frees arrays while the interpreter ends would abort the program."""
    compute, before = LocalWorker._compute, set(threading.enumerate())

    def slow(self, call, ended):
        if call.piece.index == 0:
            time.sleep(0.5)
        return compute(self, call, ended)

    service = serve(model)
    monkeypatch.setattr(LocalWorker, "_compute", slow)
    service.submit(images[:1]).result()
    service.close()
    assert not set(threading.enumerate()) - before


def test_degraded_in_every_stage(model, images):
    """A chain whose second worker is late: the deadline holds for all of it."""
    model = rebuilt(model, code="zero_fill", stages=((1, 1), (3, 3)))
    slow = Faults(delays=(NOW, NEVER, NOW))
    with serve(model, faults=slow, shortfall="degrade", patience=600) as service:
        answer = service.submit(images[:1], deadline=1.0).result()
    assert answer.degraded and answer.decoded == ((1,), (1,))
    assert answer.classes == model.classify(images[:1], lost=[1])


@pytest.mark.parametrize("kind", ["kill", "freeze"])
def test_a_lost_worker_joins_again(model, images, kind):
    with serve(model, patience=0.5) as service:
        worker = service.engine.pool.workers[1]
        worker.disturb(kind)
        end = time.monotonic() + 60
        while service.summary()["workers"][1]["restarts"] == 0:
            answer = service.submit(images[:1]).result()
            lost = sorted({0, 1, 2} - {*answer.used[0]})
            assert answer.classes == model.classify(images[:1], lost=lost)
            assert time.monotonic() < end
        answer = service.submit(images[:1], without=[0]).result()  # waits for it
        assert answer.used == ((1, 2),)
        assert answer.classes == model.classify(images[:1], lost=[0])


def test_requests_wait_for_workers_that_are_being_restarted(model, images):
    with serve(model, patience=0.3) as service:
        for worker in service.engine.pool.workers:
            worker.disturb("freeze")
        answer = service.submit(images[:1]).result()
        lost = sorted({0, 1, 2} - {*answer.used[0]})
        assert answer.classes == model.classify(images[:1], lost=lost)


def test_a_full_queue(model, images):
    slow = Faults(delays=(NEVER,))
    with serve(model, faults=slow, in_flight=1, queue=1, patience=600) as service:
        first, second = (service.submit(images[:1]) for _ in range(2))
        with pytest.raises(serving.Overloaded):
            service.submit(images[:1], block=False)
        with pytest.raises(serving.Overloaded):
            service.submit(images[:1], deadline=0.1)
        assert service.summary()["requests"]["overload"] == 2
        closing = threading.Thread(target=service.close)
        closing.start()
        with pytest.raises(serving.Closed):
            first.result(timeout=30)
        assert second.cancelled()
        closing.join()
        with pytest.raises(serving.Closed):
            service.submit(images[:1], block=False)


def test_one_compilation_serves_all_patterns(model, images):
    with serve(model) as service:
        before = parts.advance._cache_size(), parts._share._cache_size()
        for lost in [(), (0,), (1,), (2,)]:
            service.submit(images[:1], without=lost).result()
        assert (parts.advance._cache_size(), parts._share._cache_size()) == before


def test_groups_of_images(model, images):
    model = rebuilt(model, split="group", code="addition")
    slow = Faults(delays=(NOW, NEVER, NOW))
    with serve(model, faults=slow, batches=(4,), patience=600) as service:
        answer = service.submit(images[:4]).result()
        assert answer.decoded == ((1,),)
        np.testing.assert_array_equal(
            answer.classes, model.classify(images[:4], lost=[1])
        )
        expected = model.predict(images[:4], lost=[1]).confidence
        np.testing.assert_allclose(answer.confidence, expected, atol=1e-4)


def test_parity_workers_with_networks_of_their_own(model, images):
    base = model.frozen
    pipeline = model.pipeline.with_codes(
        lambda shape, _: codes.parity_model(shape, base)
    )
    params = pipeline.init(jax.random.key(0))
    moved = jax.tree.map(lambda x: x + 0.01, params)
    model = model._replace(pipeline=pipeline, params=moved)
    with serve(model) as service:
        answer = service.submit(images[:1], without=[0]).result()
        assert answer.classes == model.classify(images[:1], lost=[0])


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"engine": "mpi"}, "engine: 'mpi' given"),
        ({"shortfall": "guess"}, "shortfall: 'guess' given"),
        ({"hedge_after": -1.0}, "hedge_after: -1.0 given"),
        ({"patience": 0.0}, "patience: 0.0 given"),
        ({"in_flight": 0}, "in_flight: 0 given"),
        ({"deadline": -1.0}, "deadline: -1.0 given"),
        ({"devices": 99}, "devices: 99 given"),
        ({"address": "localhost:1"}, "address: 'localhost:1' given"),
        ({"faults": Faults(delays=(NOW, NOW))}, "delays: 2 distributions given"),
        ({"engine": "spmd", "faults": Faults(nans=0.1)}, "faults: nans"),
        ({"batches": (0,)}, r"batches: \(0,\) given"),
        ({"batches": ()}, r"batches: \(\) given"),
        ({"engine": "spmd", "hedge_after": 1.0}, "hedge_after or shortfall"),
        ({"engine": "ray", "devices": 3}, "devices: 3 given"),
        ({"faults": Faults(delays=[NOW], stragglers=4)}, "stragglers: 4 given"),
    ],
)
def test_wrong_settings_are_refused(model, wrong, message):
    with pytest.raises(ValueError, match=message):
        serving.serve(model, **wrong).close()


@pytest.mark.parametrize(
    "wrong",
    [
        {"nans": 1.5},
        {"exceptions": -0.1},
        {"kills": -1},
        {"stragglers": -1},
        {"seed": -1},
        {"service": (-0.1,)},
    ],
)
def test_wrong_faults_are_refused(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}: "):
        Faults(**wrong)


def test_faults_are_fixed_by_their_seed():
    some = Faults(delays=(Constant(1.0),), stragglers=1, exceptions=0.3, nans=0.3)
    drawn = [some.of_request(i, 6) for i in range(200)]
    assert drawn == [some.of_request(i, 6) for i in range(200)]
    assert all(sum(f.delay for f in each) == 1.0 for each in drawn)
    late = np.array([[f.delay for f in each] for each in drawn]).mean(axis=0)
    assert (late > 0.08).all()  # 1/6 of the requests each
    kinds = [f.kind for each in drawn for f in each]
    assert abs(kinds.count("raise") / 1200 - 0.3) < 0.05
    assert abs(kinds.count("nan") / 1200 - 0.3 * 0.7) < 0.05
    other = dataclasses.replace(some, seed=1)
    assert drawn != [other.of_request(i, 6) for i in range(200)]
