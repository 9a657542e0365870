"""Order statistics by a sorting network."""

import itertools

import numpy as np
import pytest

from coded_jax.codes.quorum import smallest, sorting_network


@pytest.mark.parametrize("n", range(1, 10))
def test_a_network_that_sorts_zeros_and_ones_sorts_everything(n):
    for values in itertools.product((0, 1), repeat=n):
        values = list(values)
        for low, high in sorting_network(n):
            if values[low] > values[high]:
                values[low], values[high] = values[high], values[low]
        assert values == sorted(values)


def test_the_kth_smallest_of_rows():
    rows = np.random.default_rng(0).permuted(
        np.arange(7 * 50.0, dtype=np.float32).reshape(7, 50), axis=0
    )
    for k in range(1, 8):
        np.testing.assert_array_equal(smallest(list(rows), k), np.sort(rows, 0)[k - 1])
