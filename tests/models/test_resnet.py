"""ResNet-18 against its published size and a second implementation."""

import jax.numpy as jnp

from tests.models.published import (
    abstract_variables,
    assert_published,
    conv_norm_by_hand,
    count_values,
)


def test_parameters_of_resnet18():
    variables = abstract_variables("resnet18", (32, 32, 3))
    # As published for CIFAR-10 with this stem.
    assert sum(count_values(variables, "params").values()) == 11_173_962
    norms = 64 + 4 * 64 + 5 * (128 + 256 + 512)
    assert sum(count_values(variables, "batch_stats").values()) == 2 * norms
    hundred = count_values(abstract_variables("resnet18", (32, 32, 3), 100), "params")
    assert sum(hundred.values()) == 11_173_962 + 90 * 513


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


def test_blocks_are_the_published_network():
    assert_published("resnet18", resnet18_by_hand)
