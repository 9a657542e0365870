"""LeNet-5 against its published size and a second implementation."""

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
    again, reseeded = (init(jax.random.key(i), (28, 28, 1), 10) for i in (0, 1))
    chex.assert_trees_all_equal(again, variables)
    for layer, name in (("f_conv", "Conv_0"), ("head", "Dense_0")):
        kernels = [v[layer]["params"][name]["kernel"] for v in (variables, reseeded)]
        assert not np.isclose(*kernels).any()
