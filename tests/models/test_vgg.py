"""VGG-16 against its published size and a second implementation."""

import jax.numpy as jnp

from tests.models.published import (
    abstract_variables,
    assert_published,
    conv_norm_by_hand,
    count_values,
)


def test_parameters_of_vgg16():
    # The published 14,714,688 of the thirteen convolutions are their weights and 4,224
    # biases, which a batch norm with a scale and an offset of each map stands in for.
    variables = abstract_variables("vgg16", (32, 32, 3))
    counts = count_values(variables, "params")
    assert counts.pop("head") == 512 * 10 + 10
    assert 2 * 64 + 2 * 128 + 3 * 256 + 6 * 512 == 4_224
    assert sum(counts.values()) == 14_714_688 - 4_224 + 2 * 4_224
    assert sum(count_values(variables, "batch_stats").values()) == 2 * 4_224
    grey = sum(
        count_values(abstract_variables("vgg16", (28, 28, 1)), "params").values()
    )
    assert sum(counts.values()) + 5_130 - grey == 2 * 9 * 64


def vgg16_by_hand(variables, x):
    for i in range(13):
        x = conv_norm_by_hand(x, variables[f"block_{i + 1}"], ["ConvNorm_0"])
        if i in (1, 3, 6, 9, 12):
            odd = x.shape[1] % 2
            x = jnp.pad(x, ((0, 0), (0, odd), (0, odd), (0, 0)))  # never negative
            rows = x.shape[1] // 2
            x = x.reshape(-1, rows, 2, rows, 2, x.shape[-1]).max((2, 4))
    return x


def test_blocks_are_the_published_network():
    assert_published("vgg16", vgg16_by_hand)
