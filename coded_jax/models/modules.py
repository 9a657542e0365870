"""Base models made of Flax modules, and the modules that they share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

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
        groups = x.shape[-1] if self.depthwise else 1
        layer = Layer(self.relu, (self.stride, self.stride), groups=groups)
        shape = (self.kernel, self.kernel, x.shape[-1] // groups, self.maps)
        kernel = _Kernel(shape, name="Conv_0")()
        norm = BatchNorm(self.maps, name="BatchNorm_0")
        if train:
            y = norm(layer.convolve(x, kernel))
            return nn.relu(y) if self.relu else y
        # By kernel and bias, since a convolution is linear.
        factor, summand = norm.affine()
        kernel = (kernel * factor[None, None, None]).astype(x.dtype)
        return convolution_layer(x, kernel, summand.astype(x.dtype), layer)


class _Kernel(nn.Module):
    """The parameter of a convolution, under the name that `nn.Conv` gives it."""

    shape: tuple[int, ...]

    @nn.compact
    def __call__(self) -> jax.Array:
        return self.param("kernel", nn.initializers.lecun_normal(), self.shape)


class PooledConvNorm(nn.Module):
    """Applies `ConvNorm`, and perhaps max pooling to half of `h` and `w`, rounded up.

    `[B, h, w, C] -> [B, h', w', maps]`.

    Attributes:
      maps, kernel, stride: of the convolution.
      pool: rows and columns that are pooled; 0 for no pooling.
    """

    maps: int
    pool: int
    kernel: int = 3
    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = ConvNorm(self.maps, self.kernel, self.stride)(x, train)
        window = (self.pool, self.pool)
        return nn.max_pool(x, window, (2, 2), "SAME") if self.pool else x


class DenseHead(nn.Module):
    """Applies dense layers to all features: `[B, M, M', D] -> [B, classes]`.

    Attributes:
      widths: of the hidden layers, each with ReLU.
      classes: of the data set.
    """

    widths: tuple[int, ...]
    classes: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = x.reshape(x.shape[0], -1)
        for width in self.widths:
            x = nn.relu(nn.Dense(width)(x))
        return nn.Dense(self.classes)(x)


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


def dense_base_model(
    features: nn.Module, blocks: tuple[Block, ...], widths: tuple[int, ...]
) -> BaseModel:
    """Makes a base model of a module without batch norm and a `DenseHead`.

    Args:
      features: called with `x`.
      blocks: what it computes, of its variables in `variables["f_conv"]`.
      widths: of the head's hidden layers.

    Returns:
      A model with variables `{"f_conv": ..., "head": ...}`.
    """
    last = f"Dense_{len(widths)}"

    def init(key: jax.Array, image_shape: tuple[int, int, int], classes: int) -> PyTree:
        conv_key, head_key = jax.random.split(key)
        image = jnp.zeros((1, *image_shape))
        x, conv = features.init_with_output(conv_key, image)
        return {"f_conv": conv, "head": DenseHead(widths, classes).init(head_key, x)}

    def head(variables: PyTree, features: jax.Array) -> jax.Array:
        classes = variables["head"]["params"][last]["bias"].shape[0]
        return apply(DenseHead(widths, classes), variables["head"], features)

    return BaseModel(init, blocks, head)


def apply(module: nn.Module, variables: PyTree, x: jax.Array) -> jax.Array:
    """Applies a module that changes none of its variables."""
    return cast(jax.Array, module.apply(variables, x))


def scaled(maps: int, width: float) -> int:
    """Returns `width` times as many maps, rounded, at least one."""
    return max(1, round(maps * width))
