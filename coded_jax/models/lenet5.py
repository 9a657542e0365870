"""LeNet-5 as in section IV-A of the paper: on 28x28 the head is 256-120-84-10.

Two 5x5 convolutions without padding, 6 and 16 channels, each with ReLU and 2x2 max
pooling, form `f_conv`; three dense layers with ReLU between them form the head.
"""

from __future__ import annotations

import jax
from flax import linen as nn

from coded_jax import convolution
from coded_jax.models.modules import scaled
from coded_jax.types import BaseModel, PyTree


class Features(nn.Module):
    """`[B, H, W, C] -> [B, M*, M'*, 16]`; `[B, 28, 28, 1]` gives `[B, 4, 4, 16]`.

    Attributes:
      on_cpu: the same by operations that are faster on CPUs.
      maps: of the two layers.
    """

    on_cpu: bool = False
    maps: tuple[int, int] = (6, 16)

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        conv = convolution.conv_by_rows if self.on_cpu else None
        for channels in self.maps:
            layer = nn.Conv(
                channels, (5, 5), padding="VALID", conv_general_dilated=conv
            )
            x = nn.relu(layer(x))
            if self.on_cpu:
                x = convolution.max_pool_2x2(x)
            else:
                x = nn.max_pool(x, (2, 2), (2, 2))
        return x


class Head(nn.Module):
    """`[B, M*, M'*, 16] -> [B, classes]`."""

    classes: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = x.reshape(x.shape[0], -1)
        for width in (120, 84):
            x = nn.relu(nn.Dense(width)(x))
        return nn.Dense(self.classes)(x)


def lenet5(width: float = 1.0) -> BaseModel:
    """LeNet-5, one block; images must be at least 16x16.

    Args:
      width: times the 6 and 16 maps; the head stays.
    """
    maps = (scaled(6, width), scaled(16, width))

    def init(key: jax.Array, image_shape: tuple[int, int, int], classes: int) -> PyTree:
        conv_key, head_key = jax.random.split(key)
        image = jax.numpy.zeros((1, *image_shape))
        features, conv = Features(maps=maps).init_with_output(conv_key, image)
        return {"f_conv": conv, "head": Head(classes).init(head_key, features)}

    def f_conv(variables: PyTree, images: jax.Array) -> jax.Array:
        on_cpu, default = (Features(cpu, maps).apply for cpu in (True, False))
        return jax.lax.platform_dependent(
            variables["f_conv"], images, cpu=on_cpu, default=default
        )

    def head(variables: PyTree, features: jax.Array) -> jax.Array:
        classes = variables["head"]["params"]["Dense_2"]["bias"].shape[0]
        return Head(classes).apply(variables["head"], features)  # type: ignore

    return BaseModel(init, (f_conv,), head)
