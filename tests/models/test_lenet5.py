"""LeNet-5 against its published size and a second implementation."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


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
