"""Second implementations and sizes, to compare base models with what was published."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from coded_jax.models import make_base_model


def random_variables(base, image_shape, classes=10, seed=0):
    """Draws variables of a base model, none of them trivial, and compiles nothing."""
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


def abstract_variables(name, image_shape, classes=10, width=1.0):
    """Returns shapes and dtypes of the variables of a base model."""
    base = make_base_model(name, width)
    return jax.eval_shape(
        lambda key: base.init(key, image_shape, classes), jax.random.key(0)
    )


def conv_norm_by_hand(x, variables, path=(), stride=1, relu=True):
    """Applies convolution and batch norm with the running statistics."""
    params, stats = variables["params"], variables["batch_stats"]
    for name in path:
        params, stats = params[name], stats[name]
    kernel, norm = params["Conv_0"]["kernel"], params["BatchNorm_0"]
    stats = stats["BatchNorm_0"]
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
