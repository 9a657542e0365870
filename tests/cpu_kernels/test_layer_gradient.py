"""Gradients of a layer with ReLU against those of its parts."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from coded_jax.cpu_kernels.layer import Layer, convolution_layer


def test_relu_lets_no_gradient_through_where_it_is_closed():
    operands = [
        jax.random.normal(jax.random.key(i), shape)
        for i, shape in enumerate([(2, 5, 4, 3), (3, 3, 3, 6), (6,)])
    ]

    def layer(x, kernel, bias):
        return convolution_layer(x, kernel, bias, Layer(relu=True)).sum()

    def by_parts(x, kernel, bias):
        layout = ("NHWC", "HWIO", "NHWC")
        y = lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=layout
        )
        return jnp.maximum(y + bias[None, None, None], 0).sum()

    found = jax.grad(layer, argnums=(0, 1, 2))(*operands)
    expected = jax.grad(by_parts, argnums=(0, 1, 2))(*operands)
    for own, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(own, other, rtol=1e-4, atol=1e-4)
