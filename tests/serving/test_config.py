"""Settings of a service: their values, and what is refused."""

import numpy as np
import pytest

from coded_jax.serving.config import ServeConfig


def test_batches_are_distinct_sizes():
    assert ServeConfig(batches=(4, 1, 4)).batches == (4, 1)
    assert ServeConfig(batches=np.array([2, 2])).batches == (2,)


@pytest.mark.parametrize("batches", [1, ("1",), (0,), (size for size in (1, 2))])
def test_other_batches_are_refused(batches):
    with pytest.raises(ValueError, match=r"^batches: .* given, integers of 1 or more"):
        ServeConfig(batches=batches)
