"""Answers that are images, served and exported: as of the model in memory."""

import numpy as np
import pytest

import coded_jax
from coded_jax.service import serve
from tests import dense_cnn

SETTINGS = {"k": 2, "r": 1, "epochs": 1, "devices": 1, "baselines": ()}


def protected(folder, model, variables, dataset):
    own = {"model": model, "variables": variables, "dataset": dataset}
    return coded_jax.protect(workdir=folder, **own, **SETTINGS)


@pytest.fixture(scope="module")
def segmenting(tmp_path_factory):
    own = (dense_cnn.segment, dense_cnn.variables_of_segment(), dense_cnn.segmented())
    return protected(tmp_path_factory.mktemp("classes"), *own)


IMAGES = dense_cnn.noisy().test.images[:4]


def test_classes_of_positions_are_served(segmenting):
    with serve(segmenting, batches=(4,), deadline=600) as service:
        for lost in ((0,), (2,)):
            response = service.submit(IMAGES, without=lost).result()
            expected = segmenting.predict(IMAGES, lost)
            assert response.classes.shape == (4, *dense_cnn.SHAPE[:2])
            np.testing.assert_array_equal(response.classes, expected.classes)
            np.testing.assert_allclose(
                response.confidence, expected.confidence, atol=1e-4
            )
            total = response.probabilities.sum(-1)
            np.testing.assert_allclose(total, np.ones_like(total), rtol=1e-5)
