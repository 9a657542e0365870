"""Services whose workers return results that are finite and wrong."""

import time

import numpy as np
import pytest

from coded_jax.service import WrongResults, serve
from coded_jax.service.faults import Fault, Faults
from tests.errors import refused
from tests.parameters import long
from tests.service.byzantine.examples import calibrated, images

CONFIDENCE = {str(lost): {"temperature": 1.0} for lost in range(3)}
SETTINGS = {"batches": (4,), "deadline": 300.0, "check_wait": 300.0}


class Chosen(Faults):
    """Faults by worker, the same in each request."""

    def __init__(self, *kinds):
        super().__init__()
        object.__setattr__(self, "kinds", kinds)

    def of_request(self, number, n, attempt=0):
        return [Fault(0.0, kind) for kind in self.kinds]


def example(r):
    """A model with an exact code, as of a finished run, and its check."""
    model, check = calibrated("mds", 2, r)
    return model._replace(results={"confidence": CONFIDENCE}), check


@pytest.mark.parametrize("kind", ["zeros", *long("bit")])
def test_a_wrong_result_is_left_out_and_its_worker_replaced(kind):
    model, check = example(2)
    faults, some = Chosen("", kind, "", ""), images(3, 5)
    with serve(model, check=check, faults=faults, **SETTINGS) as service:
        for _ in range(3):
            answer = service.submit(some).result()
            assert answer.checked and answer.wrong == (1,)
            assert answer.used == ((0, 2, 3),) and answer.decoded == ((1,),)
            expected = model.logits(some, lost=[1])
            np.testing.assert_allclose(answer.logits, expected, rtol=1e-4, atol=1e-4)
        end = time.monotonic() + 60
        while not (worker := service.summary()["workers"][1])["restarts"]:
            assert time.monotonic() < end
        assert worker["losses"]["wrong"] == 3
        assert service.summary()["checked"] == 1.0


def test_results_that_contradict_without_a_culprit_are_an_error():
    model, check = example(1)
    faults, some = Chosen("", "zeros", ""), images(1, 5)
    with serve(model, check=check, faults=faults, **SETTINGS) as service:
        with pytest.raises(WrongResults, match=r"results \[0, 1, 2\] of 3"):
            service.submit(some).result()
        assert service.summary()["requests"]["contradiction"] == 1
        # Two are all that is needed: there is nothing to compare.
        assert not service.submit(some, without=[2]).result().checked


def test_checks_that_do_not_fit_are_refused(finished):
    model, check = example(1)
    other, _ = example(2)
    with refused("check"):  # of another model
        serve(other, check=check, check_wait=1.0)
    with refused("check"):
        serve(model, check_wait=1.0)
    with refused("folder"):
        serve(finished, check_wait=1.0)
