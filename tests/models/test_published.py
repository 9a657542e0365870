"""Base models against second implementations of the published networks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from coded_jax.models import make_base_model
from tests.models.published import conv_norm_by_hand, random_variables
from tests.parameters import long


def vgg16_by_hand(variables, x):
    for i in range(13):
        x = conv_norm_by_hand(x, variables[f"block_{i + 1}"], ["ConvNorm_0"])
        if i in (1, 3, 6, 9, 12):
            odd = x.shape[1] % 2
            x = jnp.pad(x, ((0, 0), (0, odd), (0, odd), (0, 0)))  # never negative
            rows = x.shape[1] // 2
            x = x.reshape(-1, rows, 2, rows, 2, x.shape[-1]).max((2, 4))
    return x


def resnet18_by_hand(variables, x):
    x = conv_norm_by_hand(x, variables["block_1"])
    for i in range(8):
        block, stride = variables[f"block_{i + 2}"], 2 if i in (2, 4, 6) else 1
        y = conv_norm_by_hand(x, block, ["ConvNorm_0"], stride)
        y = conv_norm_by_hand(y, block, ["ConvNorm_1"], relu=False)
        if stride == 2:
            x = conv_norm_by_hand(x, block, ["ConvNorm_2"], stride, relu=False)
        x = jnp.maximum(x + y, 0)
    return x


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


def mobilenet_by_hand(variables, x, first=1, halved=(3, 6), blocks=13):
    x = conv_norm_by_hand(x, variables["block_1"], stride=first)
    for i in range(blocks):
        block, stride = variables[f"block_{i + 2}"], 2 if i in halved else 1
        layers = [[f"ConvNorm_{j}"] for j in range(3)]
        y = conv_norm_by_hand(x, block, layers.pop(0)) if i else x  # no expansion
        y = conv_norm_by_hand(y, block, layers.pop(0), stride)
        y = conv_norm_by_hand(y, block, layers.pop(0), relu=False)
        x = x + y if x.shape == y.shape else y
    return x


def mobilenet_v2_by_hand(variables, x):
    x = mobilenet_by_hand(variables, x, first=2, halved=(1, 3, 6, 13), blocks=17)
    return conv_norm_by_hand(x, variables["block_19"])


@pytest.mark.parametrize(
    "name, by_hand, image_shape",
    [
        ("vgg16", vgg16_by_hand, (28, 28, 1)),
        ("resnet18", resnet18_by_hand, (28, 28, 1)),
        ("mobilenet_v2", mobilenet_v2_by_hand, (62, 64, 3)),
        *long(
            ("mobilenet", mobilenet_by_hand, (28, 28, 1)),
            ("resnet50", resnet50_by_hand, (62, 64, 3)),
        ),
    ],
)
def test_blocks_are_the_published_network(name, by_hand, image_shape):
    # 28: an odd number of rows before the third pooling.
    base = make_base_model(name, 1 / 16)
    variables = random_variables(base, image_shape)
    images = np.random.default_rng(1).normal(size=(2, *image_shape)).astype("f")
    features = jax.jit(base.f_conv)(variables, images)
    expected = jax.jit(by_hand)(variables, images)
    assert float(expected.std()) > 0.05
    np.testing.assert_allclose(features, expected, rtol=1e-3, atol=1e-4)
    layer = variables["head"]["params"]["logits"]
    logits = np.mean(features, (1, 2)) @ layer["kernel"] + layer["bias"][None]
    head = base.head(variables, features)
    np.testing.assert_allclose(head, logits, rtol=1e-4, atol=1e-5)
