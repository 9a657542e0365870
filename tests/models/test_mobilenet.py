"""The depthwise network against MobileNetV2's sizes and a second implementation."""

from tests.models.published import (
    abstract_variables,
    assert_published,
    conv_norm_by_hand,
    count_values,
)


def test_parameters_of_mobilenet():
    # Block by block those of the published network.
    published = [928, 896, 5_136, 8_832, 10_000, 14_848, 14_848, 21_056]
    published += [54_272] * 3 + [66_624] + [118_272] * 2
    counts = count_values(abstract_variables("mobilenet", (32, 32, 3)), "params")
    assert counts == {
        **{f"block_{i + 1}": size for i, size in enumerate(published)},
        "head": 96 * 10 + 10,
    }


def mobilenet_by_hand(variables, x):
    x = conv_norm_by_hand(x, variables["block_1"])
    for i in range(13):
        block, stride = variables[f"block_{i + 2}"], 2 if i in (3, 6) else 1
        layers = [[f"ConvNorm_{j}"] for j in range(3)]
        y = conv_norm_by_hand(x, block, layers.pop(0)) if i else x  # no expansion
        y = conv_norm_by_hand(y, block, layers.pop(0), stride)
        y = conv_norm_by_hand(y, block, layers.pop(0), relu=False)
        x = x + y if x.shape == y.shape else y
    return x


def test_blocks_are_the_published_network():
    assert_published("mobilenet", mobilenet_by_hand)
