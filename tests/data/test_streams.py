"""Data that users hand in, cut into parts of one size."""

import numpy as np
import pytest

from coded_jax.data.streams import collect, parts
from coded_jax.types import Split
from tests.errors import refused

IMAGES = np.arange(23, dtype=np.uint8).reshape(-1, 1, 1, 1)
LABELS = np.arange(23) % 3


def in_batches(size):
    return (
        (IMAGES[start : start + size], LABELS[start : start + size])
        for start in range(0, len(LABELS), size)
    )


@pytest.mark.parametrize("size", [1, 7, 50])
def test_a_stream_and_arrays_are_cut_alike(size):
    for data in (Split(IMAGES, LABELS), (IMAGES, LABELS), in_batches(size)):
        chunks = list(parts(data, 5))
        assert [len(part.labels) for part in chunks] == [5, 5, 5, 5, 3]
        rows = np.concatenate([part.images for part in chunks])
        np.testing.assert_array_equal(rows, IMAGES)
        rows = np.concatenate([part.labels for part in chunks])
        np.testing.assert_array_equal(rows, LABELS)
    np.testing.assert_array_equal(collect(in_batches(size)).images, IMAGES)


def test_what_is_no_data_is_refused():
    uneven = [(IMAGES, LABELS[:-1])]
    mixed = [(IMAGES, LABELS), (IMAGES.astype("f"), LABELS)]
    for given in (3, [3], uneven, mixed, []):
        with refused("data"):
            collect(given)
