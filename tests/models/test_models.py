"""Base models against their published sizes and a second implementation."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from coded_jax.models import make_base_model

DENSE_0 = {(28, 28, 1): 4 * 4 * 16, (32, 32, 3): 5 * 5 * 16}


def shapes(image_shape, classes):
    base = make_base_model("lenet5")
    return jax.eval_shape(
        lambda key: base.init(key, image_shape, classes), jax.random.key(0)
    )


@pytest.mark.parametrize("classes", [10, 7])
@pytest.mark.parametrize("image_shape", DENSE_0)
def test_shapes_of_variables(image_shape, classes):
    variables = jax.tree.map(lambda x: (x.shape, x.dtype), shapes(image_shape, classes))
    layer = lambda *kernel: {
        "kernel": (kernel, jnp.float32),
        "bias": (kernel[-1:], jnp.float32),
    }
    assert variables == {
        "f_conv": {
            "params": {
                "Conv_0": layer(5, 5, image_shape[2], 6),
                "Conv_1": layer(5, 5, 6, 16),
            }
        },
        "head": {
            "params": {
                "Dense_0": layer(DENSE_0[image_shape], 120),
                "Dense_1": layer(120, 84),
                "Dense_2": layer(84, classes),
            }
        },
    }


@pytest.mark.parametrize(
    "image_shape, f_conv, head",
    [
        # 25*1*6 + 6 and 25*6*16 + 16; 256*120 + 120, 120*84 + 84 and 84*10 + 10.
        ((28, 28, 1), 156 + 2_416, 30_840 + 10_164 + 850),
        # 25*3*6 + 6 and as above; 400*120 + 120 and as above.
        ((32, 32, 3), 456 + 2_416, 48_120 + 10_164 + 850),
    ],
)
def test_number_of_parameters(image_shape, f_conv, head):
    variables = shapes(image_shape, 10)
    count = lambda tree: sum(x.size for x in jax.tree.leaves(tree))
    assert count(variables["f_conv"]) == f_conv
    assert count(variables["head"]) == head


# 28 - 4 = 24, halved 12, - 4 = 8, halved 4. 32: 28, 14, 10, 5. 16: 12, 6, 2, 1.
@pytest.mark.parametrize(
    "image_shape, features",
    [
        ((28, 28, 1), (4, 4, 16)),
        ((32, 32, 3), (5, 5, 16)),
        ((16, 28, 1), (1, 4, 16)),
    ],
)
def test_shapes_of_features_and_logits(image_shape, features):
    base = make_base_model("lenet5")
    variables = shapes(image_shape, 7)
    images = jax.ShapeDtypeStruct((3, *image_shape), jnp.float32)
    out = jax.eval_shape(base.f_conv, variables, images)
    assert (out.shape, out.dtype) == ((3, *features), jnp.float32)
    logits = jax.eval_shape(base.head, variables, out)
    assert (logits.shape, logits.dtype) == ((3, 7), jnp.float32)


def by_hand(variables, images):
    x = images
    for name in ("Conv_0", "Conv_1"):
        layer = variables["f_conv"]["params"][name]
        x = lax.conv_general_dilated(
            x,
            layer["kernel"],
            (1, 1),
            "VALID",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        x = jnp.maximum(x + layer["bias"][None, None, None], 0)
        batch, height, width, channels = x.shape
        x = x.reshape(batch, height // 2, 2, width // 2, 2, channels).max((2, 4))
    features = x
    x = x.reshape(-1, 256)
    for name in ("Dense_0", "Dense_1", "Dense_2"):
        layer = variables["head"]["params"][name]
        x = x @ layer["kernel"] + layer["bias"][None]
        x = x if name == "Dense_2" else jnp.maximum(x, 0)
    return features, x


def test_lenet5_is_what_the_paper_says(lenet):
    base, variables = lenet
    rng = np.random.default_rng(0)
    # Biases start at zero: make them count.
    variables = jax.tree.map(
        lambda x: x + rng.normal(scale=0.1, size=x.shape).astype("f"), variables
    )
    images = rng.normal(size=(4, 28, 28, 1)).astype("f")

    @jax.jit
    def actual(variables, images):
        features = base.f_conv(variables, images)
        return features, base.head(variables, features)

    expected = jax.jit(by_hand)(variables, images)
    chex.assert_trees_all_close(
        actual(variables, images), expected, rtol=1e-5, atol=1e-5
    )
    assert np.min(expected[0]) == 0 < np.max(expected[0])


def test_init_depends_on_the_key_alone(lenet):
    base, variables = lenet
    init = jax.jit(base.init, static_argnums=(1, 2))
    again, other = (init(jax.random.key(i), (28, 28, 1), 10) for i in (0, 1))
    chex.assert_trees_all_equal(again, variables)
    for layer, name in (("f_conv", "Conv_0"), ("head", "Dense_0")):
        kernels = [v[layer]["params"][name]["kernel"] for v in (variables, other)]
        assert not np.isclose(*kernels).any()


def test_unknown_base_model_is_refused():
    with pytest.raises(ValueError, match=r"^base_model: 'lenet' given, \['lenet5'"):
        make_base_model("lenet")


# --- networks with batch norm ---------------------------------------------------------

MAPS = {
    "vgg16": (64,) * 2 + (128,) * 2 + (256,) * 3 + (512,) * 6,
    "resnet18": (64,) * 3 + (128,) * 2 + (256,) * 2 + (512,) * 2,
    "mobilenet": (32, 16) + (24,) * 2 + (32,) * 3 + (64,) * 4 + (96,) * 3,
}
# Rows of the maps of every block, for images of 28 and of 32.
ROWS = {
    ("vgg16", 28): (28, 14, 14, 7, 7, 7, 4, 4, 4, 2, 2, 2, 1),
    ("vgg16", 32): (32, 16, 16, 8, 8, 8, 4, 4, 4, 2, 2, 2, 1),
    ("resnet18", 28): (28, 28, 28, 14, 14, 7, 7, 4, 4),
    ("resnet18", 32): (32, 32, 32, 16, 16, 8, 8, 4, 4),
    ("mobilenet", 28): (28,) * 4 + (14,) * 3 + (7,) * 7,
    ("mobilenet", 32): (32,) * 4 + (16,) * 3 + (8,) * 7,
}


def random_variables(base, image_shape, classes=10, seed=0):
    """Variables of a base model, none of them trivial; nothing is compiled for them."""
    rng = np.random.default_rng(seed)

    def draw(path, x):
        name = path[-1].key
        if name in ("var", "scale"):
            return rng.uniform(0.5, 1.5, x.shape).astype("f")
        deviation = 0.1
        if name == "kernel":
            deviation = np.sqrt(2 / np.prod(x.shape[:-1]))
        return rng.normal(scale=deviation, size=x.shape).astype("f")

    shapes = jax.eval_shape(
        lambda key: base.init(key, image_shape, classes), jax.random.key(0)
    )
    return jax.tree_util.tree_map_with_path(draw, shapes)


def sizes(tree, collection):
    """Number of values in one collection of every block, and of the head."""
    return {
        name: sum(x.size for x in jax.tree.leaves(block.get(collection, {})))
        for name, block in tree.items()
    }


def counted(name, image_shape, classes=10, width=1.0):
    base = make_base_model(name, width)
    return jax.eval_shape(
        lambda key: base.init(key, image_shape, classes), jax.random.key(0)
    )


def test_parameters_of_vgg16():
    # The published 14,714,688 of the thirteen convolutions are their weights and 4,224
    # biases, which a batch norm with a scale and an offset of each map stands in for.
    variables = counted("vgg16", (32, 32, 3))
    found = sizes(variables, "params")
    assert found.pop("head") == 512 * 10 + 10
    assert sum(MAPS["vgg16"]) == 4_224
    assert sum(found.values()) == 14_714_688 - 4_224 + 2 * 4_224
    assert sum(sizes(variables, "batch_stats").values()) == 2 * 4_224
    grey = sum(sizes(counted("vgg16", (28, 28, 1)), "params").values())
    assert sum(found.values()) + 5_130 - grey == 2 * 9 * 64


def test_parameters_of_resnet18():
    variables = counted("resnet18", (32, 32, 3))
    # As published for CIFAR-10 with this stem.
    assert sum(sizes(variables, "params").values()) == 11_173_962
    norms = 64 + 4 * 64 + 5 * (128 + 256 + 512)
    assert sum(sizes(variables, "batch_stats").values()) == 2 * norms
    hundred = sizes(counted("resnet18", (32, 32, 3), 100), "params")
    assert sum(hundred.values()) == 11_173_962 + 90 * 513


def test_parameters_of_mobilenet():
    # Block by block those of the published network.
    published = [928, 896, 5_136, 8_832, 10_000, 14_848, 14_848, 21_056]
    published += [54_272] * 3 + [66_624] + [118_272] * 2
    found = sizes(counted("mobilenet", (32, 32, 3)), "params")
    assert found == {
        **{f"block_{i + 1}": size for i, size in enumerate(published)},
        "head": 96 * 10 + 10,
    }


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("image_shape", [(28, 28, 1), (32, 32, 3)])
@pytest.mark.parametrize("width", [1.0, 1 / 8])
def test_shapes_of_every_block(name, image_shape, width):
    base = make_base_model(name, width)
    variables = counted(name, image_shape, 7, width)
    x = jax.ShapeDtypeStruct((3, *image_shape), jnp.float32)
    found = []
    for block in base.blocks:
        x = jax.eval_shape(block, variables, x)
        found.append(x.shape)
    assert found == [
        (3, rows, rows, int(maps * width))
        for rows, maps in zip(ROWS[name, image_shape[0]], MAPS[name], strict=True)
    ]
    assert jax.eval_shape(base.head, variables, x).shape == (3, 7)


def test_some_maps_are_always_left():
    assert counted("vgg16", (28, 28, 1), width=1e-3)["head"]["params"]["logits"][
        "kernel"
    ].shape == (1, 10)
    lenet = counted("lenet5", (28, 28, 1), width=0.5)["f_conv"]["params"]
    assert [lenet[f"Conv_{i}"]["bias"].shape for i in (0, 1)] == [(3,), (8,)]


def conv_norm_by_hand(x, variables, path=(), stride=1, relu=True):
    """Convolution and batch norm with the running statistics; depthwise if it fits."""
    params, stats = variables["params"], variables["batch_stats"]
    for name in path:
        params, stats = params[name], stats[name]
    kernel, norm, stats = (
        params["Conv_0"]["kernel"],
        params["BatchNorm_0"],
        stats["BatchNorm_0"],
    )
    x = lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1] // kernel.shape[2],
    )
    along = lambda v: v[None, None, None]
    x = (x - along(stats["mean"])) / jnp.sqrt(along(stats["var"]) + 1e-5)
    x = x * along(norm["scale"]) + along(norm["bias"])
    return jnp.maximum(x, 0) if relu else x


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


@pytest.mark.parametrize("f", [vgg16_by_hand, resnet18_by_hand, mobilenet_by_hand])
def test_blocks_are_the_published_network(f):
    # 28: an odd number of rows before the third pooling.
    base = make_base_model(f.__name__.removesuffix("_by_hand"), 1 / 16)
    variables = random_variables(base, (28, 28, 1))
    images = np.random.default_rng(1).normal(size=(2, 28, 28, 1)).astype("f")
    features = jax.jit(base.f_conv)(variables, images)
    expected = jax.jit(f)(variables, images)
    assert float(expected.std()) > 0.05
    np.testing.assert_allclose(features, expected, rtol=1e-3, atol=1e-4)
    layer = variables["head"]["params"]["logits"]
    logits = np.mean(features, (1, 2)) @ layer["kernel"] + layer["bias"][None]
    np.testing.assert_allclose(
        base.head(variables, features), logits, rtol=1e-4, atol=1e-5
    )
