"""Base models made of Flax modules with batch norm, and modules that they share."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from coded_jax.cpu_kernels.layer import Layer, convolution_layer
from coded_jax.models.batch_norm import BatchNorm
from coded_jax.types import BaseModel, Block, PyTree


class ConvNorm(nn.Module):
    """Applies convolution, batch norm and perhaps ReLU.

    `[B, h, w, C] -> [B, h', w', maps]`.

    Attributes:
      maps: output maps.
      kernel: its size along both axes; padded as Flax's `SAME`.
      stride: along both axes.
      relu: whether a ReLU follows.
      depthwise: every map by itself; `maps` must be those of the input.
    """

    maps: int
    kernel: int = 3
    stride: int = 1
    relu: bool = True
    depthwise: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        norm = BatchNorm(self.maps, name="BatchNorm_0")
        convolve = functools.partial(
            nn.Conv,
            self.maps,
            (self.kernel, self.kernel),
            (self.stride, self.stride),
            use_bias=False,
            feature_group_count=x.shape[-1] if self.depthwise else 1,
            name="Conv_0",
        )
        if train:
            x = norm(convolve()(x))
            return nn.relu(x) if self.relu else x
        factor, summand = norm.affine()

        def folded(
            x: jax.Array,
            kernel: jax.Array,
            strides: Sequence[int],
            padding: Any,
            *,
            feature_group_count: int,
            **_: Any,
        ) -> jax.Array:
            """Normalises by kernel and bias, since a convolution is linear."""
            return convolution_layer(
                x,
                (kernel * factor[None, None, None]).astype(x.dtype),
                summand.astype(x.dtype),
                Layer(self.relu, tuple(strides), padding, groups=feature_group_count),
            )

        return convolve(conv_general_dilated=folded)(x)


class PoolHead(nn.Module):
    """Averages over positions, then a dense layer: `[B, M, M', D] -> [B, classes]`."""

    classes: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.Dense(self.classes, name="logits")(x.mean((1, 2)))


class PositionHead(nn.Module):
    """Applies a dense layer by position: `[B, M, M', D] -> [B, M, M', classes]`."""

    classes: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.Conv(self.classes, (1, 1), name="logits")(x)


def base_model(
    blocks: Sequence[nn.Module],
    last: type[PoolHead | PositionHead] = PoolHead,
) -> BaseModel:
    """Makes a base model of some blocks and a head.

    Args:
      blocks: modules that are called with `(x, train)`.
      last: `PoolHead` or `PositionHead`.

    Returns:
      A model with variables `{"block_1": ..., "block_2": ..., "head": ...}`.
    """
    names = [f"block_{i + 1}" for i in range(len(blocks))]

    def init(key: jax.Array, image_shape: tuple[int, int, int], classes: int) -> PyTree:
        keys = jax.random.split(key, len(blocks) + 1)
        variables, x = {}, jnp.zeros((1, *image_shape))
        for name, block, block_key in zip(names, blocks, keys[:-1], strict=True):
            x, variables[name] = block.init_with_output(block_key, x, False)
        return {**variables, "head": last(classes).init(keys[-1], x)}

    def head(variables: PyTree, features: jax.Array) -> jax.Array:
        classes = variables["head"]["params"]["logits"]["bias"].shape[0]
        return apply(last(classes), variables["head"], features)

    def train(variables: PyTree, images: jax.Array) -> tuple[jax.Array, PyTree]:
        x, updated_stats = images, {}
        for name, block in zip(names, blocks, strict=True):
            own = dict(variables[name])
            # The running means stay float32: in bfloat16 small moves would be lost.
            own["params"] = optax.tree.cast(own["params"], images.dtype)
            x, updated_stats[name] = block.apply(own, x, True, mutable=["batch_stats"])
        return head(variables, x), updated_stats

    def inference(name: str, block: nn.Module) -> Block:
        return lambda variables, x: block.apply(variables[name], x, False)

    return BaseModel(init, tuple(map(inference, names, blocks)), head, train)


def apply(module: nn.Module, variables: PyTree, x: jax.Array) -> jax.Array:
    """Applies a module that changes none of its variables."""
    return cast(jax.Array, module.apply(variables, x))


def scaled(maps: int, width: float) -> int:
    """Returns `width` times as many maps, rounded, at least one."""
    return max(1, round(maps * width))
