"""Every convolution a round of its own, on workers of which some are lost."""

import jax
import numpy as np
import pytest

from coded_jax import serving
from coded_jax.latency.stragglers import Constant
from coded_jax.models.modules import ConvNorm, base_model
from coded_jax.runs.build import build_pipeline
from coded_jax.runs.coded_model import CodedModel
from coded_jax.runs.config import Config
from coded_jax.serving.faults import Fault, Faults
from tests.models.published import random_variables

NEVER, NOW = Constant(600.0), Constant(0.0)
UNSURE = {"temperature": 1.0}


class Anew(Faults):
    """Faults of other workers in each request."""

    def of_request(self, number, n, attempt=0):
        lost = {number % n: "raise", (number + 1) % n: "nan"}
        return [Fault(0.0, lost.get(i, "")) for i in range(n)]


@pytest.fixture(scope="module")
def model():
    """Three convolutions in a row; any four of six results are enough."""
    base = base_model([ConvNorm(4), ConvNorm(4, stride=2), ConvNorm(8)])
    config = Config(base_model="own", split="convolution", code="mds", k=4, r=2)
    shape = (28, 28, 1)
    pipeline = build_pipeline(config, shape, 10, (0.4,), (0.3,), base=base)
    params = pipeline.init(jax.random.key(0))
    calibration = {str(lost): UNSURE for lost in range(3)}
    results = {"confidence": calibration}
    return CodedModel(pipeline, random_variables(base, shape), params, results)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (12, 28, 28, 1), np.uint8)


def require_answers(service, model, images):
    """Checks answers against those of the network itself, round by round."""
    expected = np.asarray(jax.nn.softmax(model.logits(images)))
    assert expected.max(axis=1).min() > 0.11
    for i in range(0, len(images), 2):
        answer = service.submit(images[i : i + 2]).result()
        assert len(answer.used) == 3
        assert all(len(used) >= 4 for used in answer.used)
        np.testing.assert_allclose(answer.probabilities, expected[i : i + 2], atol=1e-4)
    return answer


def serve(model, engine, **settings):
    given = {"deadline": 600.0, "batches": (2,), "patience": 600.0, **settings}
    return serving.serve(model, engine, **given)


def test_stragglers_are_not_waited_for(model, images):
    slow = Faults(delays=(NEVER, NOW, NOW, NEVER, NOW, NOW))
    with serve(model, "local", devices=1, faults=slow) as service:
        answer = require_answers(service, model, images)
    assert answer.used == ((1, 2, 4, 5),) * 3
    assert answer.decoded == ((0, 3),) * 3


def test_results_that_are_lost_or_spoiled(model, images):
    with serve(model, "local", devices=1, faults=Anew()) as service:
        require_answers(service, model, images)
