"""Predictions of single images."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from coded_jax import make_pipeline
from coded_jax.codes.erasures import patterns_up_to
from coded_jax.devices import placement
from coded_jax.devices.meshes import make_mesh
from coded_jax.evaluation import predictions
from coded_jax.evaluation.pattern_accuracy import pattern_statistics
from tests.splitting.exactness import conv


def test_no_class_without_finite_logits():
    logits = jnp.array([[0.0, 1.0], [jnp.nan, 1.0], [2.0, -jnp.inf]])
    assert predictions.classes_of(logits).tolist() == [1, -1, -1]


def test_what_the_client_keeps_is_divided_like_the_batch():
    """Of every convolution by itself, in a network whose shortcut is the image."""

    def residual(variables, x):
        return jnp.concatenate([conv(jax.nn.relu(conv(x))), x], axis=-1)

    weights = np.random.default_rng(0).normal(size=(10 * 10 * 3, 5)).astype("f")
    rng = np.random.default_rng(1)
    images = rng.normal(size=(19, 10, 10, 1)).astype("f")
    labels = rng.integers(0, 5, 19).astype(np.int32)
    patterns, measured = patterns_up_to(6, 2), []
    meshes = (None, make_mesh(6, 8, None))
    for mesh, losses in itertools.product(meshes, ("held", "per_stage")):
        pipeline = make_pipeline(
            blocks=residual,
            head=lambda variables, x: x.reshape(len(x), -1) @ variables,
            variables=weights,
            image_shape=(10, 10, 1),
            classes=5,
            mesh=mesh,
            split="convolution",
            code="mds",
            k=4,
            r=2,
        )
        assert len(pipeline.stages) == 2
        arrays = {"images": images, "labels": labels}
        frozen, arrays = placement.put_replicated(mesh, (weights, arrays))
        params = pipeline.init(jax.random.key(0))
        trained = predictions.TrainedPipeline(pipeline, frozen, params)
        inputs = (trained, arrays, patterns, pattern_statistics)
        measured.append(predictions.measure(*inputs, stage_losses=losses))
        agreement, error = measured[-1][:, 1], measured[-1][:, 2]
        assert agreement.min() == 1 and error.max() < 1e-10
    for other in measured[1:]:
        np.testing.assert_array_equal(other[:, 0], measured[0][:, 0])
