"""Exact codes around every convolution: nothing changes, whatever is lost."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax import lax

import coded_jax
from coded_jax.codes.erasures import available, patterns_up_to
from coded_jax.devices.meshes import make_mesh
from coded_jax.inference.costs import cost_of
from coded_jax.inference.pipeline import infer, infer_uncoded, up_to_decoder
from coded_jax.models import make_base_model
from coded_jax.runs.build import build_pipeline, rival_pipelines
from coded_jax.runs.config import Config
from tests.models.published import random_variables

ROUNDS = {"lenet5": 2, "vgg16": 13, "resnet18": 17, "mobilenet": 39}
run = jax.jit(infer, static_argnums=0)
run_uncoded = jax.jit(infer_uncoded, static_argnums=0)


def pipeline_of(name, size=28, mesh=None, **settings):
    """The pipeline of a narrow network, and its variables."""
    width = 1.0 if name == "lenet5" else 1 / 16
    fields = {"code": "mds", "split": "convolution", **settings}
    config = Config(base_model=name, base_width=width, **fields)
    shape = (size, size, 1)
    pipeline = build_pipeline(config, shape, 10, (0.4,), (0.3,), mesh)
    return pipeline, random_variables(make_base_model(name, width), shape)


def pixels(size=28, batch=3):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (batch, size, size, 1), np.uint8)


def assert_exact(logits, expected):
    scale = np.ptp(expected)
    assert scale > 0.05
    np.testing.assert_allclose(logits, expected, rtol=0, atol=2e-5 * scale)


@pytest.mark.parametrize("size, k, r", [(28, 4, 2), (32, 2, 1)])
@pytest.mark.parametrize("name", ROUNDS)
def test_every_pattern_gives_the_logits_of_the_network(name, size, k, r):
    pipeline, variables = pipeline_of(name, size, k=k, r=r)
    images, params = pixels(size), pipeline.init(jax.random.key(0))
    assert len(pipeline.stages) == ROUNDS[name]
    expected = run_uncoded(pipeline, variables, images)
    before = run._cache_size()
    for lost in patterns_up_to(k + r, r):
        mask = available(lost, k + r)
        assert_exact(run(pipeline, variables, params, images, mask), expected)
    assert run._cache_size() == before + 1
    # In every round other losses, and of each image its own.
    rng = np.random.default_rng(0)
    masks = np.ones((ROUNDS[name], k + r, len(images)), bool)
    for round_, image in itertools.product(range(ROUNDS[name]), range(len(images))):
        masks[round_, rng.permutation(k + r)[:r], image] = False
    assert_exact(run(pipeline, variables, params, images, masks), expected)


def test_the_convolutions_of_some_blocks_alone():
    stages = ((2, 3), (5, 5))
    pipeline, variables = pipeline_of("resnet18", stages=stages, k=2, r=1)
    assert len(pipeline.stages) == 6  # of a residual block two; a shortcut is kept
    expected = run_uncoded(pipeline, variables, pixels())
    params = pipeline.init(jax.random.key(0))
    for lost in patterns_up_to(3, 1):
        mask = available(lost, 3)
        assert_exact(run(pipeline, variables, params, pixels(), mask), expected)
    every, blocks = (
        cost_of(pipeline_of("resnet18", **fields)[0], variables, (28, 28, 1))
        for fields in ({}, {"stages": stages, "split": "image"})
    )
    cost = cost_of(pipeline, variables, (28, 28, 1))
    assert set(cost.rounds) < set(every.rounds) and cost.whole == every.whole
    # Beside the blocks that are in no stage the client adds, and applies ReLUs.
    assert 1 < cost.client_flops / blocks.client_flops < 1.05


def test_all_devices_of_a_mesh():
    pipeline, variables = pipeline_of("resnet18", mesh=make_mesh(3, 8, None))
    params = pipeline.init(jax.random.key(0))
    for batch in (3, 11):  # smaller than the mesh; padded for it
        images = pixels(batch=batch)
        expected = run_uncoded(pipeline, variables, images)
        for lost in ((), (0,)):
            mask = available(lost, 3)
            assert_exact(run(pipeline, variables, params, images, mask), expected)


def test_bfloat16():
    pipeline, variables = pipeline_of("resnet18", precision="bfloat16")
    params = pipeline.init(jax.random.key(0))
    expected = run_uncoded(pipeline, variables, pixels())
    logits = run(pipeline, variables, params, pixels(), available((0,), 3))
    np.testing.assert_allclose(logits, expected, rtol=0, atol=0.05 * np.ptp(expected))


LAYERS = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["plain", "residual", "branches", "depthwise", "pool"]),
        "kernel": st.tuples(st.integers(1, 3), st.integers(1, 3)),
        "stride": st.tuples(st.integers(1, 2), st.integers(1, 2)),
        "dilation": st.tuples(st.integers(1, 2), st.integers(1, 2)),
        "padding": st.sampled_from(
            ["SAME", "VALID", ((2, 0), (0, 1)), ((-1, 1), (1, 0))]
        ),
    }
)


def convolve(key, x, layer, maps=4, groups=1, **changed):
    p = {**layer, **changed}
    shape = (*p["kernel"], x.shape[-1] // groups, maps)
    kernel = jax.random.normal(key, shape) / np.sqrt(np.prod(shape[:3]))
    return lax.conv_general_dilated(
        x,
        kernel,
        p["stride"],
        p["padding"],
        rhs_dilation=p["dilation"],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def apply_layer(key, x, layer):
    """Applies a layer, or returns its input where nothing would be left of it."""
    one, two, three = jax.random.split(key, 3)
    y = convolve(one, x, layer)
    if 0 in y.shape:
        return x
    if layer["kind"] == "residual":
        alike = {"stride": (1, 1), "padding": "SAME"}
        other = convolve(two, jnp.tanh(x), layer, x.shape[-1], **alike)
        return jax.nn.relu(x + other)
    if layer["kind"] == "branches":
        point = convolve(two, x, layer, padding="SAME", kernel=(1, 1), dilation=(1, 1))
        same = convolve(three, x, layer, padding="SAME")
        return jnp.concatenate([jax.nn.relu(point), same], axis=-1)
    if layer["kind"] == "depthwise":
        return jax.nn.relu(
            convolve(two, x, layer, x.shape[-1], groups=x.shape[-1]) - 0.1
        )
    y = jax.nn.relu(y + 0.1)
    if layer["kind"] == "pool":
        return lax.reduce_window(
            y, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "SAME"
        )
    return y


@given(
    layers=st.lists(LAYERS, min_size=1, max_size=3),
    shape=st.tuples(st.integers(5, 12), st.integers(5, 12), st.integers(1, 2)),
    sizes=st.sampled_from([(2, 1), (3, 1), (4, 2)]),
)
def test_any_network(layers, shape, sizes):
    (k, r), key = sizes, jax.random.key(0)

    def f_conv(variables, x):
        first = convolve(key, x, {**layers[0], "padding": "SAME", "stride": (1, 1)})
        for i, layer in enumerate(layers):
            first = apply_layer(jax.random.fold_in(variables, i), first, layer)
        return first

    weights = np.random.default_rng(0).normal(size=(1, 10)).astype("f")
    head = lambda variables, features: (
        features.reshape(len(features), -1).sum(1, keepdims=True) @ weights
    )
    pipeline = coded_jax.make_pipeline(
        blocks=f_conv,
        head=head,
        variables=key,
        image_shape=shape,
        classes=10,
        split="convolution",
        code="mds",
        k=k,
        r=r,
    )
    images = np.random.default_rng(1).normal(size=(2, *shape)).astype("f")
    options = {"xla_backend_optimization_level": 0}
    compiled = jax.jit(infer, static_argnums=0, compiler_options=options)
    expected = head(None, jax.jit(f_conv)(key, images))
    params = pipeline.init(key)
    scale = max(np.ptp(expected), 1.0)
    for lost in itertools.combinations(range(k + r), r):
        logits = compiled(pipeline, key, params, images, available(lost, k + r))
        np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4 * scale)


def test_costs_by_hand():
    """LeNet-5: what the client computes whole is bias, ReLU and pooling."""
    pipeline, variables = pipeline_of("lenet5", k=4, r=2)
    cost = cost_of(pipeline, variables, (28, 28, 1))
    assert len(cost.rounds) == 2 and cost.devices == 6
    first, second = cost.rounds
    # 24x24 outputs in quarters of 12x12, then 8x8 in quarters of 4x4.
    assert first.device_flops == 2 * 25 * 6 * 12 * 12
    assert second.device_flops == 2 * 25 * 6 * 16 * 4 * 4
    assert (first.bytes_in, first.bytes_out) == (4 * 16 * 16, 4 * 12 * 12 * 6)
    # Of each value bias and ReLU, and three comparisons for a pooled one.
    values = 24 * 24 * 6 + 8 * 8 * 16
    assert cost.client_flops == values * 2 + values / 4 * 3
    plain, _ = pipeline_of("lenet5", k=4, r=2, split="image", grid=(2, 2))
    assert cost.whole == cost_of(plain, variables, (28, 28, 1)).whole


@pytest.mark.parametrize("name", ["vgg16", "resnet18", "mobilenet"])
def test_work_of_a_device_is_about_its_share(name):
    pipeline, variables = pipeline_of(name, size=32, k=4, r=2)
    cost = cost_of(pipeline, variables, (32, 32, 1))
    assert 1 / 4 <= cost.device_flops / (cost.whole_flops - cost.client_flops) < 1 / 3.5
    assert 0 < cost.client_flops < 0.2 * cost.whole_flops
    plain, _ = pipeline_of(name, size=32, stages=((1, 1),), split="image")
    assert cost.whole_flops == cost_of(plain, variables, (32, 32, 1)).whole_flops


def test_what_is_kept_stays_with_the_client():
    pipeline, variables = pipeline_of("resnet18")
    params = pipeline.init(jax.random.key(0))
    results = up_to_decoder(pipeline, variables, params, pixels())
    assert results.features.shape[:2] == (3, 3) and results.kept == ()
    x = jnp.zeros((2, *pipeline.stages[0].plan.share_shape))
    plan = pipeline.stages[1].plan
    merged = jnp.zeros((2, 28, 28, x.shape[-1]))
    state = pipeline.stages[1].before.f_conv(variables, merged)
    padded, shortcut = state
    assert padded.shape == (2, plan.rows.size, plan.columns.size, plan.channels)
    assert shortcut.shape == merged.shape


@pytest.mark.parametrize("code", ["learned", "no_parity", "parity_model"])
def test_codes_with_a_training_are_refused(code):
    accepted = f"^code: '{code}' given, one that is not trained, as mds, with split="
    with pytest.raises(ValueError, match=accepted):
        pipeline_of("lenet5", code=code)
    pipeline, variables = pipeline_of("lenet5")
    config = Config(code="mds", split="convolution", baselines=(code,))
    with pytest.raises(ValueError, match=accepted):
        rival_pipelines(config, pipeline, variables)


def test_pieces_of_convolutions_have_no_grid_and_groups_no_stages():
    with pytest.raises(ValueError, match="^split: 'convolution' given, image with a g"):
        Config(code="mds", split="convolution", grid=(2, 1))
    accepted = "^split: 'group' given, image or convolution with stages accepted"
    with pytest.raises(ValueError, match=accepted):
        Config(split="group", stages=((1, 2),))


def test_a_stage_without_a_convolution_is_named():
    accepted = r"for a network without a convolution .* \(stage 2-2 of --stages\)$"
    with pytest.raises(ValueError, match=accepted):
        pipeline_of("lenet5", stages=((1, 1), (2, 2)))
