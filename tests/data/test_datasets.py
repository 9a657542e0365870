"""Data sets by name: the registry and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from coded_jax.data import datasets
from coded_jax.data.sources import Parts, Source
from coded_jax.types import Split
from tests.errors import refused


def test_a_line_in_the_registry_is_all_that_a_data_set_needs(monkeypatch):
    part = Split(np.zeros((2, 4, 4, 1), np.uint8), np.array([0, 1], np.int32))

    def find(name, data_dir):
        if data_dir is None:
            raise FileNotFoundError(name)
        return 2

    read = lambda place, image_size: Parts(place, part, part, part)
    monkeypatch.setitem(datasets.DATASETS, "zeros", Source(find, read))
    dataset = datasets.load("zeros", "a folder")
    assert (dataset.name, dataset.classes, dataset.mean) == ("zeros", 2, (0,))
    for function in (datasets.check, datasets.load):
        with pytest.raises(FileNotFoundError, match="^zeros$"):
            function("zeros")
        with refused("dataset"):
            function("imagenet")
