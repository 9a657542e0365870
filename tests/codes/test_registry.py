"""The registry: what is true of every code, and a new code or network is one line."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from rich.console import Console
from tables import points

import coded_jax
from coded_jax import codes
from coded_jax.codes import CodeEntry, networks
from coded_jax.codes.erasures import available
from coded_jax.codes.networks.network import Network
from coded_jax.devices.meshes import make_mesh
from coded_jax.inference.pipeline import Examples, infer
from coded_jax.runs import experiment
from coded_jax.runs.build import build_pipeline
from coded_jax.runs.config import Config
from coded_jax.runs.prepare import prepare
from coded_jax.runs.workdir import Places
from coded_jax.types import Code
from tests.codes.rival_examples import (
    SHAPE,
    encoded_and_decoded,
    images_of,
    pipeline_of,
)
from tests.pipelines import untrained


@pytest.mark.parametrize("name", ["berrut", "spline"])
def test_interpolants_go_near_the_pieces(name):
    pieces, shares = encoded_and_decoded(untrained(name, SHAPE), SHAPE, ())
    assert 1e-3 < np.abs(shares - pieces).mean() < 0.7


def test_parity_models_on_several_devices(lenet):
    base, variables = lenet
    pipe = pipeline_of(base, code="parity_model", k=2, r=2)
    params = jax.jit(pipe.init)(jax.random.key(0))
    mask, run = available((0, 2), 4), jax.jit(infer, static_argnums=0)
    expected = run(pipe, variables, params, images_of(8), mask)
    spread = pipe._replace(mesh=make_mesh(4, devices=4))
    logits = run(spread, variables, params, images_of(8), mask)
    np.testing.assert_allclose(logits, expected, atol=1e-4)


def scaled_sum(shape):
    """A code of one parity piece, the sum, with a scale to learn."""

    def decode(params, features, available):
        arrived = available[..., None, None, None]
        features = jnp.where(arrived, features, 0)
        missing = params["scale"] * (features[-1:] - features[:-1].sum(0)[None])
        return jnp.where(arrived[:-1], features[:-1], missing)

    return Code(
        init=lambda key: {"scale": jnp.ones(())},
        encode=lambda params, pieces: jnp.concatenate([pieces, pieces.sum(0)[None]]),
        decode=decode,
        systematic=True,
    )


class Mean(nn.Module):
    """An encoder or decoder: `count` scaled means of what it is given."""

    count: int

    @nn.compact
    def __call__(self, x):
        scale = self.param("scale", nn.initializers.ones_init(), (self.count,))
        return scale[:, None, None, None, None] * x.mean(0)[None]


@pytest.fixture
def registered(monkeypatch):
    """Settings that name a new code and new networks, each of them one line."""
    entry = CodeEntry(
        lambda shape, variables, config: scaled_sum(shape),
        trained=True,
        label="{code} of {recipe}",
        title="scaled sums",
    )
    encoder = Network(lambda spec: Mean(spec.shape.r), has_width=False)
    decoder = Network(lambda spec: Mean(spec.shape.k))
    settings = dict(
        dataset="mnist_5k",
        recipe="systematic",
        code="scaled_sum",
        baselines=("learned",),
        encoder="mean",
        decoder="mean",
        encoder_width=8,
        decoder_width=8,
        base_epochs=0.2,
        epochs=0.2,
    )
    for name in ("encoder", "decoder", "code"):
        with pytest.raises(ValueError, match=f"^{name}: '{settings[name]}' given, one"):
            Config(**{name: settings[name]})
    monkeypatch.setitem(codes.CODES, "scaled_sum", entry)
    monkeypatch.setitem(networks.ENCODERS, "mean", encoder)
    monkeypatch.setitem(networks.DECODERS, "mean", decoder)
    return Config(**settings)


def test_a_new_code_and_new_networks_are_built(registered):
    for name, part in [("scaled_sum", "scale"), ("learned", "decoder")]:
        config = dataclasses.replace(registered, code=name, baselines=())
        pipeline = build_pipeline(config, Examples((28, 28, 1), (0.5,), (0.25,)), 10)
        (params,) = jax.eval_shape(pipeline.init, jax.random.key(0))
        assert part in params


@pytest.mark.long
def test_a_new_code_and_new_networks_are_those_of_a_run(registered, tmp_path):
    """They are trained, stored, shown, planned with and loaded."""
    prepared = prepare(registered, Places(tmp_path, devices=1))
    model = experiment.run(prepared, console=Console(quiet=True), command="test")
    results = model.results
    assert results["steps"]["code"] > 0 and results["steps"]["learned"] > 0
    rule = {"systematic": True, "suffices": "any_k", "answers_always": True}
    assert results["recovery"] == {"code": rule, "learned": rule}
    names = ["scaled_sum of systematic", "systematic mean / mean 8"]
    assert [point.code for point in points.points(results)] == names
    model = coded_jax.load(tmp_path, devices=1)
    assert model.params[0].keys() == {"scale"}
    assert model.params[0]["scale"] != 1


def test_a_function_is_a_code(lenet):
    """A function stands wherever a code is named, and has a name of its own."""
    config = Config(code=scaled_sum, baselines=(scaled_sum, "mds"))
    assert config.to_json()["code"] == "tests.codes.test_registry:scaled_sum"
    base, _ = lenet
    pipe = pipeline_of(base, code=scaled_sum)
    assert pipe.init(jax.random.key(0))[0].keys() == {"scale"}
