"""The U-Net: shapes, what it refuses, and that its pieces are exact."""

import jax
import jax.numpy as jnp

from coded_jax.models import make_base_model
from tests.models.published import abstract_variables

SHAPE = (64, 64, 1)


def test_answers_at_each_position():
    base = make_base_model("unet")
    variables = abstract_variables("unet", SHAPE, 11, 1.0)
    image = jax.ShapeDtypeStruct((3, *SHAPE), jnp.float32)
    features = jax.eval_shape(base.f_conv, variables, image)
    assert features.shape == (3, 64, 64, 16)
    assert jax.eval_shape(base.head, variables, features).shape == (3, 64, 64, 11)
    # 3x3: 1-16, 16-32, 32-64, 64-32 and 32-16; 2x2 up: 64-32 and 32-16; 1x1: 16-11.
    convs = 9 * (16 + 16 * 32 + 32 * 64 + 64 * 32 + 32 * 16)
    ups, norms = 4 * (64 * 32 + 32 * 16) + 32 + 16, 4 * (2 * 16 + 2 * 32 + 64)
    total = sum(x.size for x in jax.tree.leaves(variables))
    assert total == convs + ups + norms + 16 * 11 + 11
