"""The study of latencies, measured and simulated, and rivals on the same workers."""

import json
import pathlib

import numpy as np
import pytest
from tables import latency

import coded_jax
from coded_jax import data
from coded_jax.latency.stragglers import Constant
from coded_jax.report import table
from coded_jax.service import Faults, ServeConfig
from coded_jax.service.engine import Inference
from coded_jax.service.local import local_workers
from coded_jax.service.pool import Pool
from coded_jax.service.studies import latency_study, rivals
from coded_jax.service.studies.latency_study import Measurement
from coded_jax.types import Split
from tests.scripts import run_script

ROOT = pathlib.Path(__file__).parents[3]


@pytest.fixture(scope="module")
def model(finished):
    return coded_jax.load(finished, devices=1)


@pytest.fixture(scope="module")
def split():
    return data.load("mnist_5k").test


@pytest.fixture
def pool(model):
    pool = Pool(local_workers(model), ServeConfig(patience=600))
    yield pool
    pool.close()


def test_rivals_are_exact(model, split):
    images = split.images[:20]
    expected = model.logits(images)
    for rival in (rivals.uncoded(model), rivals.replicated(model)):
        logits = rival.model.logits(images)
        np.testing.assert_allclose(logits, expected, atol=1e-4)
    layered = rivals.per_convolution(model, ((1, 1), (3, 3)))
    for lost in [(), (0,), (1,), (2,)]:
        logits = layered.model.logits(images, lost=lost)
        np.testing.assert_allclose(logits, expected, atol=1e-3)


def test_recovery_of_a_killed_worker(model, pool, split):
    coded = rivals.coded(model).engine(pool)
    recovery = latency_study.measure_recovery(coded, split.images, 1, 300)
    assert recovery["requests"] >= 1 and recovery["lost"] == 0
    assert len(recovery["seconds"]) == 1 and recovery["seconds"][0] < 300
    assert pool.status()[0]["restarts"] == 1


def test_measured_and_simulated_meet_the_same_delays(model, pool, split):
    """A straggler in each request: uncoded waits for it, where it has a piece."""
    faults = Faults(delays=(Constant(0.2),), stragglers=1)
    met = [[f.delay > 0 for f in faults.of_request(i, 3)] for i in range(12)]
    plain = rivals.uncoded(model)
    engine = plain.engine(pool)
    calm = latency_study.measure_latencies(engine, split, 12)
    assert calm.agreement == 1.0 and calm.decoded == 0.0
    assert calm.accuracy == calm.direct
    measured = latency_study.measure_latencies(engine, split, 12, faults)
    # By a calm request that took no time, so that the delays alone are left.
    at_once = calm._replace(seconds=[0.0] * 12, phases=dict.fromkeys(calm.phases, 0))
    simulated = latency_study.simulate_latencies(plain, at_once, faults, 3, 12)
    late = np.array([any(delays[:2]) for delays in met])
    assert 0 < late.sum() < 12
    np.testing.assert_allclose(simulated, 0.2 * late, rtol=1e-6)
    assert (np.array(measured.seconds) >= simulated).all()

    coded = rivals.coded(model)
    quick = latency_study.measure_latencies(coded.engine(pool), split, 12, faults)
    assert quick.agreement == 1.0 and quick.accuracy == quick.direct
    # Two of three are enough, and nobody waits for the straggler.
    assert not any(latency_study.simulate_latencies(coded, at_once, faults, 3, 12))


def inference(label, decode, decoded):
    """Of a request whose first data piece was decoded, or not."""
    logits = np.eye(10, dtype=np.float32)[[label]]
    available = np.array([[not decoded], [True], [decoded]])[None]
    seconds = {"encode": 0.002, "wait": 0.003, "decode": decode}
    return Inference(logits, available, ((),), False, seconds)


def test_a_measurement_is_arithmetic(model, split):
    """Four requests: one was lost, one is not what a direct computation says."""
    images = split.images[:4]
    classes = np.asarray(model.classify(images))
    coded = np.asarray(model.classify(images, lost=[0]))
    labels = np.array([classes[0], classes[1], coded[2], 0])
    inferences = {
        0: inference(classes[0], 0.010, False),
        2: inference(coded[2], 0.030, True),
        1: inference((classes[1] + 1) % 10, 0.020, False),
    }
    seconds = np.array([0.1, 0.2, 0.3, np.inf])
    of_four = Split(images, labels)
    measured = latency_study.summarise(model, of_four, seconds, inferences)
    assert measured.seconds == [0.1, 0.2, 0.3, np.inf]
    assert measured.accuracy == 2 / 4 and measured.direct == 3 / 4
    assert measured.agreement == pytest.approx(2 / 3)
    assert measured.decoded == pytest.approx(1 / 3)
    expected = dict(encode=0.002, decode=0.015, decoding=0.015)
    assert measured.phases == pytest.approx(expected)


def test_replay_is_arithmetic(model):
    """A calm request of 10 ms: 1 to encode, 2 for all else by itself, 7 for workers."""
    phases = dict(encode=0.001, decode=0.002, decoding=0.002)
    calm = Measurement([0.010] * 5, phases, 1.0, 1.0, 1.0, 0.0)
    faults = Faults(delays=(Constant(0.05), Constant(0.0), Constant(0.0)))
    # Piece 0 is late: where it is coded the other two are enough, and are decoded.
    expected_of = {rivals.coded: 0.012, rivals.uncoded: 0.060, rivals.replicated: 0.010}
    for make, expected in expected_of.items():
        latencies = latency_study.simulate_latencies(make(model), calm, faults, 3, 7)
        np.testing.assert_allclose(latencies, expected, rtol=1e-5)


def test_a_table_of_a_study():
    """One of four requests was lost; the code's gap is half as long as without it."""
    delayed = {"seconds": [0.2, 0.1, np.inf, 0.3], "decoded": 0.5, "accuracy": 0.75}
    parts = {
        "coded, delayed": {**delayed, "direct": 0.7512},
        "coded, calm": {"seconds": [0.1, 0.3, 0.2]},
        "coded, simulated": [0.1, 0.1, 0.4],
        "coded, plan": {"pieces": "2x1 + 1", "work": 0.5},
    }
    (requests,) = latency.requests_of({"parts": parts}, 0.0)
    cells = {header: text(requests) for header, text in latency.COLUMNS.items()}
    assert cells["calm p50"] == cells["p50"] == "200.0" and cells["p99.9"] == "inf"
    assert cells["simulated gap"] == "300.0" and cells["lost"] == "1"
    assert cells["decoded"] == "50.00" and cells["direct"] == "75.12"
    plain, coded = ([1.0] * 990 + [slowest] * 10 for slowest in (5.0, 3.0))
    assert latency.gap_ratio(plain, coded) == (2.0, 2.0, 2.0)


@pytest.mark.long
def test_the_script_measures_and_goes_on(finished, tmp_path):
    arguments = [f"--workdir={finished}", f"--output={tmp_path}", "--engine=local"]
    arguments += ["--devices=3", "--stragglers=1", "--requests=12"]
    arguments += ["--delay=constant", "--delay_parameters=0.03", "--calm_requests=10"]
    done = run_script("latency", *arguments)
    assert done.returncode == 0, done.stderr
    path = tmp_path / "latency.json"
    content = json.loads(path.read_text())
    assert len(content["parts"]["coded, delayed"]["seconds"]) == 12
    strategies = latency.requests_of(content, 0.0)
    rows = {row[0]: row for row in table.make(latency.COLUMNS, strategies).rows}
    assert rows["coded"][1:3] == ["2x1 + 1", "0.562"] and "hedged at once" in rows

    # What is there is not measured again; what is missing is.
    kept = content["parts"]["coded, calm"]
    del content["parts"]["hedged, delayed"]
    path.write_text(json.dumps(content))
    done = run_script("latency", *arguments)
    assert done.returncode == 0, done.stderr
    parts = json.loads(path.read_text())["parts"]
    assert parts["coded, calm"] == kept and "hedged, delayed" in parts


def test_choose(tmp_path):
    runs = sorted((ROOT / "experiments/results/frontier").glob("*_k2_r1.json"))
    arguments = [
        "--failure=0.05",
        "--client_seconds=0.001",
        "--max_devices=3",
        f"--output={tmp_path}",
    ]
    done = run_script("choose", "--target=0.08", *arguments, *runs)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "choose.json").read_text())["rows"]
    assert rows[0]["accuracy"] == max(row["accuracy"] for row in rows)
    # Uncoded, all three of three devices must live.
    (plain,) = (r for r in rows if (r["code"], r["k"]) == ("uncoded", 3))
    assert plain["answered"] <= 0.95**3 + 0.01
