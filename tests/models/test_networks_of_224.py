"""ResNet-50 and MobileNetV2: published sizes, second implementations, exact splits."""

import functools

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from coded_jax.models import make_base_model
from coded_jax.splitting.plan import make_plan
from coded_jax.types import chain
from tests.models.published import (
    abstract_variables,
    assert_published,
    conv_norm_by_hand,
    count_values,
    random_variables,
)
from tests.splitting.exactness import assert_exact

IMAGE = (224, 224, 3)
RESIDUALS = [(16, 112)] + [(24, 56)] * 2 + [(32, 28)] * 3 + [(64, 14)] * 4
RESIDUALS += [(96, 14)] * 3 + [(160, 7)] * 3 + [(320, 7)]
BLOCKS = {
    "resnet50": [(64, 56)]
    + [(256, 56)] * 3
    + [(512, 28)] * 4
    + [(1024, 14)] * 6
    + [(2048, 7)] * 3,
    "mobilenet_v2": [(32, 112), *RESIDUALS, (1280, 7)],
}
"""Maps and rows of every block."""


@pytest.mark.parametrize(
    "name, parameters", [("resnet50", 25_557_032), ("mobilenet_v2", 3_504_872)]
)
def test_parameters_are_those_published_for_imagenet(name, parameters):
    variables = abstract_variables(name, IMAGE, 1000)
    counts = count_values(variables, "params")
    assert sum(counts.values()) == parameters
    assert counts["head"] == (BLOCKS[name][-1][0] + 1) * 1000


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("width", [1.0, 1 / 8])
def test_shapes_of_every_block(name, width):
    variables = abstract_variables(name, IMAGE, 7, width)
    x, shapes = jax.ShapeDtypeStruct((3, *IMAGE), jnp.float32), []
    for block in make_base_model(name, width).blocks:
        x = jax.eval_shape(block, variables, x)
        shapes.append(x.shape)
    assert shapes == [(3, m, m, int(maps * width)) for maps, m in BLOCKS[name]]


def resnet50_by_hand(variables, x):
    x = conv_norm_by_hand(x, variables["block_1"], ["ConvNorm_0"], 2)
    # 3x3 windows in steps of 2; where their padding is, ReLU left nothing lower.
    x = lax.reduce_window(x, 0.0, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "SAME")
    for i in range(16):
        block, stride = variables[f"block_{i + 2}"], 2 if i in (3, 7, 13) else 1
        y = conv_norm_by_hand(x, block, ["ConvNorm_0"])
        y = conv_norm_by_hand(y, block, ["ConvNorm_1"], stride)
        y = conv_norm_by_hand(y, block, ["ConvNorm_2"], relu=False)
        if i in (0, 3, 7, 13):
            x = conv_norm_by_hand(x, block, ["ConvNorm_3"], stride, relu=False)
        x = jnp.maximum(x + y, 0)
    return x


def mobilenet_v2_by_hand(variables, x):
    x = conv_norm_by_hand(x, variables["block_1"], stride=2)
    for i in range(17):
        block, stride = variables[f"block_{i + 2}"], 2 if i in (1, 3, 6, 13) else 1
        layers = [[f"ConvNorm_{j}"] for j in range(3)]
        y = conv_norm_by_hand(x, block, layers.pop(0)) if i else x  # no expansion
        y = conv_norm_by_hand(y, block, layers.pop(0), stride)
        y = conv_norm_by_hand(y, block, layers.pop(0), relu=False)
        x = x + y if x.shape == y.shape else y
    return conv_norm_by_hand(x, variables["block_19"])


@pytest.mark.parametrize(
    "name, by_hand",
    [("resnet50", resnet50_by_hand), ("mobilenet_v2", mobilenet_v2_by_hand)],
)
def test_blocks_are_the_published_network(name, by_hand):
    assert_published(name, by_hand, (62, 64, 3))


@pytest.mark.parametrize("name, last", [("resnet50", 5), ("mobilenet_v2", 6)])
def test_pieces_give_what_the_whole_image_gives(name, last):
    base = make_base_model(name, 1 / 16)
    f_conv, variables = chain(base.blocks[:last]), random_variables(base, IMAGE)
    for k, most in ((2, 0.65), (4, 0.45)):
        plan = make_plan(f_conv, variables, IMAGE, (k, 1))
        assert plan.work_fraction < most
        assert_exact(functools.partial(f_conv, variables), plan)
