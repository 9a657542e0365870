"""Base models of the registry are split exactly; what cannot be is refused."""

import functools

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn
from jax import lax

from coded_jax.models import BASE_MODELS, make_base_model
from coded_jax.splitting.plan import make_plan
from coded_jax.types import chain
from tests.errors import refused
from tests.models.published import random_variables
from tests.splitting.exactness import assert_exact

# Name -> width, image and first blocks, cut where their maps can still be split; and
# the grids. Work of two strips is at most 3/4, as of the U-Net.
NETWORKS = {
    "lenet5": (1.0, (28, 28, 1), 4, [(4, 1), (2, 2)]),
    "vgg16": (1 / 16, (32, 36, 3), 4, [(2, 2)]),
    "resnet18": (1 / 16, (31, 32, 3), 3, [(1, 3)]),
    "mobilenet": (1 / 16, (32, 32, 3), 5, [(2, 1)]),
    "resnet50": (1 / 16, (97, 112, 3), 4, [(2, 2)]),
    "mobilenet_v2": (1 / 8, (97, 112, 3), 4, [(2, 2)]),
    "unet": (1 / 4, (64, 64, 1), 1, [(2, 1)]),
}


def test_every_network_of_convolutions_is_in_the_table():
    assert {*NETWORKS} == {*BASE_MODELS} - {"mlp"}


@pytest.mark.parametrize("name", NETWORKS)
def test_base_models_are_split_exactly(name):
    width, shape, blocks, grids = NETWORKS[name]
    base = make_base_model(name, width)
    f_conv, variables = chain(base.blocks[:blocks]), random_variables(base, shape)
    for grid in grids:
        plan = make_plan(f_conv, variables, shape, grid)
        assert plan.grid == grid and plan.work_fraction < 0.8
        assert_exact(functools.partial(f_conv, variables), plan)


def test_whole_networks_on_small_images_say_that_they_cannot_be_split():
    base, shape = make_base_model("resnet18", 1 / 16), (32, 32, 3)
    with refused("k"):
        make_plan(base.f_conv, random_variables(base, shape), shape, (2, 1))


SHAPE = (24, 20, 4)


def layer(x, kernel=(3, 3), **options):
    """A convolution with ones, to 4 maps."""
    options = {"window_strides": (1, 1), "padding": "SAME"} | options
    return lax.conv_general_dilated(
        x,
        jnp.ones((*kernel, x.shape[-1], 4)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        **options,
    )


def attention_over_rows(x):
    weights = nn.softmax(jnp.einsum("bhwc,bgwc->bwhg", x, x))
    return jnp.einsum("bwhg,bgwc->bhwc", weights, x)


def batch_norm_in_training(x):
    module = nn.BatchNorm(use_running_average=False)
    variables = jax.jit(module.init)(jax.random.key(0), jnp.zeros(x.shape))
    return module.apply(variables, x, mutable="batch_stats")[0]


def padded(x):
    return layer(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect"))


def resized(x):
    return jax.image.resize(x, (x.shape[0], 31, 20, x.shape[-1]), "linear")


def dropout(x):
    keep = jax.random.bernoulli(jax.random.key(0), 0.5, x.shape)
    return jnp.where(keep, layer(x), 0.0)


# Each with words of the message; all of them also say what can be done. What
# `analyse` refuses, by operation, is in its own test.
REFUSED = {
    "global pooling": (lambda x: layer(x).mean((1, 2)), "global pooling"),
    "flatten": (lambda x: layer(x).reshape(x.shape[0], -1), "flatten"),
    "attention over rows": (attention_over_rows, "attention"),
    "reflect padding": (padded, "reflect"),
    "dropout": (dropout, "random numbers"),
    "batch norm": (batch_norm_in_training, "batch norm in training mode"),
    "image as window": (lambda x: layer(x, (47, 39)), "all 24 rows"),
    "resize by no factor": (resized, "positions"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_split_is_refused_in_a_line(name):
    f, words = REFUSED[name]
    with pytest.raises(ValueError, match=words) as error:
        make_plan(lambda variables, x: f(x), {}, SHAPE, (2, 1))
    message = str(error.value)
    assert "\n" not in message and message.startswith(("f_conv: ", "k: "))
    assert any(way in message for way in ("head", "earlier", "accepted"))
