"""A CNN of one's own, of functions that no other process could import, is served."""

import importlib.util
from concurrent.futures import ProcessPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import coded_jax
from coded_jax import codes
from coded_jax.inference.pipeline import Examples
from coded_jax.runs.build import build_pipeline
from coded_jax.runs.config import Config
from coded_jax.service import serve
from tests.own_cnn import CLASSES, DATASET
from tests.scripts import forks


def closures():
    """Blocks and a head that hold an array and each other."""
    scale = jnp.asarray([[[[0.5, 1.0, 1.5, 2.0]]]])
    dimensions = ("NHWC", "HWIO", "NHWC")

    def conv(kernel, x):
        return jax.lax.conv_general_dilated(
            x, kernel, (2, 2), "SAME", dimension_numbers=dimensions
        )

    def block(variables, x):
        return jnp.tanh(scale * conv(variables["kernel"], x))

    def head(variables, features):
        return features.reshape(len(features), -1) @ variables["dense"]

    rng = np.random.default_rng(1)
    variables = {
        "kernel": rng.normal(size=(3, 3, 1, 4)).astype("f"),
        "dense": rng.normal(size=(6 * 6 * 4, CLASSES)).astype("f"),
    }
    return block, head, variables


@pytest.fixture(scope="module")
def images():
    return DATASET.test.images


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return tmp_path_factory.mktemp("runs") / "own"


@pytest.fixture(scope="module")
def model(workdir):
    block, head, variables = closures()
    return coded_jax.protect(
        blocks=block,
        head=head,
        variables=variables,
        dataset=DATASET,
        workdir=workdir,
        devices=1,
        epochs=1,
        decoder_width=8,
        baselines=(),
    )


def require_answers(service, model, images):
    for lost in ((0,), (1,), (2,)):
        response = service.submit(images[:4], without=lost).result()
        assert response.classes.tolist() == model.classify(images[:4], lost).tolist()
        expected = model.predict(images[:4], lost).confidence
        np.testing.assert_allclose(response.confidence, expected, atol=1e-4)


def test_a_workdir_is_given_its_functions(model, workdir, images):
    block, head, variables = closures()
    with pytest.raises(ValueError, match="blocks, head: "):
        serve(workdir)
    loaded = coded_jax.load(workdir, 1, blocks=block, head=head, variables=variables)
    with serve(loaded, batches=(4,), deadline=600) as service:
        require_answers(service, model, images)


def shipped_and_whole(name):
    """The shapes of a model's parameters, as Ray has shipped it and as it was."""
    from ray import cloudpickle

    config, shape = Config(), (28, 28, 1)
    if name in codes.CODES:
        config = Config(code=name)
    else:
        config, shape = Config(base_model=name, stages=((1, 1),)), (32, 32, 3)
    statistics = (0.0,) * shape[-1], (1.0,) * shape[-1]
    pipeline = build_pipeline(config, Examples(shape, *statistics), 10)
    shipped = cloudpickle.loads(cloudpickle.dumps(pipeline))
    shapes = lambda init: jax.tree.map(
        jnp.shape, jax.eval_shape(init, jax.random.key(0))
    )
    return shapes(shipped.init), shapes(pipeline.init)


@pytest.fixture(scope="module")
def elsewhere():
    """A process that may import Ray, which a service of this one sets variables for."""
    with ProcessPoolExecutor(1, forks) as executor:
        yield executor


@pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed"
)
@pytest.mark.parametrize("name", ["resnet18", "learned", "mds"])
def test_models_can_be_shipped(name, elsewhere):
    shipped, whole = elsewhere.submit(shipped_and_whole, name).result()
    assert shipped == whole
