"""Stages of whole networks of several frameworks are found, and are exact."""

import functools

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st
from jax import lax

from coded_jax import plan_stages
from coded_jax.inference.rates import Rates
from coded_jax.types import apart
from tests.errors import refused
from tests.parameters import long
from tests.splitting import test_pieces
from tests.staging.exactness import assert_exact, split_logits
from tests.staging.networks import NETWORKS, SHAPE, Gated, linen

DEFAULT = ["gates", "attention", "gate by einsum", "equinox", "lax"]


@pytest.mark.parametrize(
    "name", [*DEFAULT, *long(*(x for x in NETWORKS if x not in DEFAULT))]
)
def test_networks(name):
    model, variables, shape = NETWORKS[name]()
    k, r = (4, 2) if name == "resnet" else (2, 1)
    plan = plan_stages(model, variables, shape, k, r)
    assert 1 <= len(plan.stages) <= 6
    assert all(rows * columns == k for rows, columns in plan.grids)
    assert plan.chain.coded > (0.6 if name in ("attention", "keras") else 0.8)
    assert_exact(model, variables, plan, shape)
    if name == "attention":  # for one image that is other operations
        assert_exact(model, variables, plan, shape, batch=1)


@hypothesis.given(
    layers=st.lists(test_pieces.layer, min_size=2, max_size=6),
    size=test_pieces.pairs(16, 40),
    k=st.sampled_from([2, 3, 4]),
)
def test_random_networks(layers, size, k):
    def model(variables, x):
        x = network(x)
        return x.mean((1, 2)) + x.reshape(x.shape[0], -1).std(1, keepdims=True)

    shape = (*size, 2)
    image = jax.ShapeDtypeStruct((1, *shape), "float32")
    network = functools.partial(test_pieces.network, layers)
    try:  # layers that leave nothing
        hypothesis.assume(jax.eval_shape(network, image).size)
    except (ValueError, ZeroDivisionError):
        hypothesis.reject()
    try:
        plan = plan_stages(model, {}, shape, k, 1)
    except ValueError as error:
        assert "\n" not in str(error)
        hypothesis.reject()
    assert_exact(model, {}, plan, shape)


def test_other_dtypes():
    model, variables, shape = NETWORKS["pyramid"]()
    plan = plan_stages(model, variables, shape, 2, 1)
    images = jax.random.normal(jax.random.key(0), (2, *shape), "bfloat16")
    cast = lambda tree: jax.tree.map(lambda x: x.astype("bfloat16"), tree)
    logits = split_logits(plan, cast(plan.variables), images)
    assert logits.dtype == "bfloat16"
    whole = model(variables, images.astype("float32"))
    tolerance = 0.1 * np.abs(whole).max()
    np.testing.assert_allclose(logits.astype("float32"), whole, atol=tolerance)


def test_shapes_of_variables_are_enough_and_gates_are_the_clients():
    model, variables, shape = NETWORKS["gates"]()
    abstract = plan_stages(model, jax.eval_shape(lambda: variables), shape, 2, 1)
    plan = plan_stages(model, variables, shape, 2, 1)
    assert (abstract.stages, abstract.grids) == (plan.stages, plan.grids)
    ((reason, count),) = plan.obstacles
    assert reason.startswith("'reduce_sum' reduces over all rows and columns")
    assert count == 3


def test_hardware_decides_between_rounds_and_operations():
    model, variables, shape = NETWORKS["resnet"]()
    plan_for = functools.partial(plan_stages, model, variables, shape, 4, 1)
    slow_links = plan_for(rates=Rates(link=10.0), least_coded=0.5)
    assert len(slow_links.stages) == 1
    free_links = plan_for(rates=Rates(1e15, 0.0, 0.0, 1e6), least_coded=0.5)
    assert len(free_links.stages) > 1
    # At either rates its own chain is the faster one.
    for rates, first, second in (
        (Rates(link=10.0), slow_links, free_links),
        (Rates(1e15, 0.0, 0.0, 1e6), free_links, slow_links),
    ):
        assert rates.seconds(first.cost) < rates.seconds(second.cost)
        assert first.chain.seconds == pytest.approx(rates.seconds(first.cost))


def test_a_head_of_several_values():
    """Also where the client has kept some of them since a round before the last."""
    model, variables, shape = NETWORKS["pyramid"]()
    plan = plan_stages(model, variables, shape, 2, 1)
    assert len(plan.stages) == 1 and plan.chain.coded > 0.85
    free = Rates(1e15, 0.0, 0.0, 1e6)
    plan = plan_stages(model, variables, shape, 2, 1, rates=free, least_coded=0.85)
    assert len(plan.stages) > 1
    assert_exact(model, variables, plan, shape)


def test_limits():
    model, variables, shape = NETWORKS["gates"]()
    plan_for = functools.partial(plan_stages, model, variables, shape, 2, 1)
    assert len(plan_for(most_rounds=1).stages) == 1
    more, less = (plan_for(least_coded=x).chain.coded for x in (0.8, 0.1))
    assert more >= 0.8 > less >= 0.1


def endless(variables, x):
    return lax.while_loop(lambda y: (y > 1).any(), lambda y: y / 2, x.mean((1, 2)))


@pytest.mark.parametrize(
    "change, name",
    [
        ({"k": 1}, "k"),
        ({"r": 0}, "r"),
        ({"most_rounds": 0}, "most_rounds"),
        ({"least_coded": 1.5}, "least_coded"),
        ({"least_coded": 0.99}, "least_coded"),  # of this network
        ({"model": lambda v, x: x @ jnp.ones((7, 7))}, "model"),
        ({"model": endless}, "model"),
        ({"model": lambda v, x: (x, x)}, "model"),
        ({"model": lambda v, x: x[:, ::2]}, "model"),  # computes nothing
        ({"model": lambda v, x: x}, "model"),
        ({"model": lambda v, x: jnp.ones(3)}, "model"),
        ({"model": lambda v, x: x.reshape(x.shape[0], -1) @ jnp.ones((6336, 3))}, "k"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(change, name):
    model, variables, _ = linen(Gated())
    options = {"model": model, "variables": variables, "image_shape": SHAPE}
    with refused(name):
        plan_stages(**{**options, "k": 2, "r": 1, **change})


def convolve(x, kernel):
    return lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def kernels(*sizes):
    rng = np.random.default_rng(0)
    return [rng.normal(size=size, scale=0.3).astype("f") for size in sizes]


def test_names_of_variables_that_collide_are_told_apart():
    one, two = kernels((1, 1, 3, 3), (1, 1, 3, 3))
    variables = {"a": {"b.c": one}, "a.b": {"c": two}}

    def model(variables, x):
        x = convolve(x, variables["a"]["b.c"])
        return convolve(jnp.tanh(x), variables["a.b"]["c"]).mean((1, 2))

    plan = plan_stages(model, variables, SHAPE, 2, 1)
    assert_exact(model, variables, plan, SHAPE)


def test_a_function_is_traced_anew_for_every_plan():
    kernel, more = kernels((3, 3, 3, 4), (3, 3, 4, 4))
    box = {"kernel": kernel}

    def model(variables, x):
        x = jnp.tanh(convolve(x, box["kernel"]))
        return convolve(x, variables).mean((1, 2))

    plan_stages(model, more, SHAPE, 2, 1)
    box["kernel"] = kernel[::-1] + 0.1
    plan = plan_stages(model, more, SHAPE, 2, 1)
    assert_exact(model, more, plan, SHAPE)


def test_a_copy_in_float32_is_made_anew_by_the_client():
    variables = kernels((3, 3, 3, 4), (3, 3, 4, 4), (3, 3, 4, 4))

    def model(variables, x):
        for kernel in variables:  # gates, whose means are taken in float32
            x = convolve(x.astype("bfloat16"), kernel.astype("bfloat16"))
            gate = jax.nn.sigmoid(x.mean((1, 2), "float32"))[:, None, None]
            x = jax.nn.relu(x * gate.astype("bfloat16"))
        return x.mean((1, 2), "float32")

    plan = plan_stages(model, variables, SHAPE, 2, 1)
    assert plan.chain.coded > 0.9
    images = state = jax.random.normal(jax.random.key(0), (3, *SHAPE))
    for block in plan.base.blocks:  # so that codes are trained in float32
        state = block(plan.variables, state)
        assert apart(state)[0].dtype == "float32"
    whole, logits = model(variables, images), split_logits(plan, plan.variables, images)
    np.testing.assert_allclose(logits, whole, atol=1e-2 * np.abs(whole).max())


def test_branches_are_the_clients_and_numbers_are_variables():
    first, second = kernels((3, 3, 3, 4), (3, 3, 4, 4))
    variables = {"first": first, "second": second, "choice": 1.0}

    def model(variables, x):
        x = jnp.tanh(convolve(x, variables["first"]))
        double = lambda x: (x * 2, variables["second"])
        same = lambda x: (x + 1, variables["second"] / 2)
        x, kernel = lax.cond(variables["choice"] > 0, double, same, x)
        return convolve(x, kernel).mean((1, 2))

    plan = plan_stages(model, variables, SHAPE, 2, 1)
    assert any("'cond'" in reason for reason, _ in plan.obstacles)
    assert_exact(model, jax.tree.map(jnp.asarray, variables), plan, SHAPE)


def test_a_roll_by_nothing_is_the_clients():
    """Its first half is empty: in windows that shift, the first block has such."""
    first, second = kernels((3, 3, 3, 4), (3, 3, 4, 4))

    def model(variables, x):
        x = jnp.roll(convolve(x, variables[0]), 0, 1)
        return convolve(jnp.tanh(x), variables[1]).mean((1, 2))

    plan = plan_stages(model, [first, second], SHAPE, 2, 1)
    assert plan.chain.coded > 0.9
    assert_exact(model, [first, second], plan, SHAPE)


def kernel_per_image(variables, x):
    """Convolves an image and its flip, two that are no batch, by a gated kernel."""
    x = convolve(x[:, ::2, ::2, :1], variables[0][:, :, :1])
    gate = jax.nn.sigmoid(x.mean((1, 2)))[:, None, None, None]

    def one(x, gate):
        pair = jnp.tanh(convolve(jnp.stack([x, x[:, ::-1]]), variables[1] * gate))
        pair = jnp.tanh(convolve(pair, variables[1] * (1 + gate)))
        return pair.mean((0, 1, 2))

    return jax.vmap(one)(x, gate)


def test_two_of_something_else_are_no_images():
    model = kernel_per_image
    variables = kernels((3, 3, 3, 4), (3, 3, 4, 4))
    plan = plan_stages(model, variables, SHAPE, 2, 1)
    images = jax.random.normal(jax.random.key(0), (3, *SHAPE))
    whole, logits = model(variables, images), split_logits(plan, plan.variables, images)
    np.testing.assert_allclose(logits, whole, atol=2e-5 * np.abs(whole).max())
