"""Networks whose values depend on the positions around them.

`conv` is the paper's, Tables I and II; `strided` is a cheaper encoder, on blocks of
pixels; `local`, with weights of its own at every position, is the "sparse MLP" of the
draft that follows the paper.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from coded_jax.codes.networks.network import Network, NetworkSpec, OnArrays
from coded_jax.cpu_kernels.layer import Layer, convolution_layer

DILATIONS = (1, 1, 2, 4, 8, 1)
BLOCK = 4  # rows and columns of pixels that are a position of `strided`


class DilatedStack(nn.Module):
    """Convolutions, one per dilation, with ReLU between, then a 1x1 convolution.

    Attributes:
      out: output maps.
      width: maps of every hidden layer; `20 * input maps` if None, as in the learned
        code of Kosaian et al. that the paper builds on.
      dilations: of the layers; each adds `(kernel - 1) * dilation` to the receptive
        field.
      kernel: rows and columns of their kernels, an odd number; the paper's are 3.
    """

    out: int
    width: int | None = None
    dilations: tuple[int, ...] = DILATIONS
    kernel: int = 3

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[B, h, w, maps] -> [B, h, w, out]`."""
        width = self.width or 20 * x.shape[-1]
        for i, dilation in enumerate(self.dilations):
            x = _Convolution(width, self.kernel, dilation, name=f"Conv_{i}")(x)
        last = f"Conv_{len(self.dilations)}"
        return _Convolution(self.out, 1, relu=False, name=last)(x)


class _Convolution(nn.Module):
    """A layer with the parameters of `nn.Conv`, without taps that see padding alone.

    On a map of 4x4 a 3x3 kernel with a dilation of 4 or more is a 1x1 kernel.
    """

    out: int
    size: int
    dilation: int = 1
    relu: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (self.size, self.size, x.shape[-1], self.out)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros_init(), (self.out,))
        # The taps that reach a map: less than its size off the middle one.
        middle, dilation = self.size // 2, self.dilation
        reach = [min(middle, (size - 1) // dilation) for size in x.shape[1:3]]
        rows, columns = (slice(middle - i, middle + i + 1) for i in reach)
        layer = Layer(self.relu, dilation=(dilation, dilation))
        return convolution_layer(x, kernel[rows, columns], bias, layer)


def to_blocks(maps: jax.Array) -> jax.Array:
    """Maps `[B, h, w, maps] -> [B, ceil(h/4), ceil(w/4), 16*maps]`, with zeros."""
    batch, h, w, depth = maps.shape
    padded = jnp.pad(maps, ((0, 0), (0, -h % BLOCK), (0, -w % BLOCK), (0, 0)))
    rows, columns = -(-h // BLOCK), -(-w // BLOCK)
    blocks = padded.reshape((batch, rows, BLOCK, columns, BLOCK, depth))
    return blocks.swapaxes(2, 3).reshape((batch, rows, columns, -1))


def from_blocks(blocks: jax.Array, depth: int) -> jax.Array:
    """Inverts that: `[B, rows, columns, 16*depth] -> [B, 4*rows, 4*columns, depth]`."""
    batch, rows, columns, _ = blocks.shape
    maps = blocks.reshape((batch, rows, columns, BLOCK, BLOCK, depth)).swapaxes(2, 3)
    return maps.reshape((batch, BLOCK * rows, BLOCK * columns, depth))


class Local(nn.Module):
    """A 3x3 convolution with weights of its own at every position, and zero padding.

    As `nn.ConvLocal`, which gathers its windows by a convolution with an identity, at
    several times the products of the layer itself.

    Attributes:
      out: output maps.
    """

    out: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[B, h, w, maps] -> [B, h, w, out]`."""
        _, h, w, maps = x.shape
        padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        shifted = [padded[:, i : i + h, j : j + w] for i in range(3) for j in range(3)]
        draw = nn.initializers.lecun_normal(in_axis=2, out_axis=3, batch_axis=(0, 1))
        kernel = self.param("kernel", draw, (h, w, 9 * maps, self.out))
        bias = self.param("bias", nn.initializers.zeros_init(), (h, w, self.out))
        y = jnp.einsum("bhwi,hwio->bhwo", jnp.concatenate(shifted, axis=-1), kernel)
        return y + bias[None]


class LocalStack(nn.Module):
    """Two locally connected layers with ReLU between.

    Attributes:
      out: output maps.
      width: maps of the hidden layer; twice the output maps if None.
    """

    out: int
    width: int | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[B, h, w, maps] -> [B, h, w, out]`."""
        hidden = nn.relu(Local(self.width or 2 * self.out)(x))
        return Local(self.out)(hidden)


def _conv(spec: NetworkSpec) -> OnArrays:
    stack = lambda out: DilatedStack(out, spec.width, spec.dilations, spec.kernel)
    return OnArrays(lambda x, out: stack(out)(x), spec)


def _strided(spec: NetworkSpec) -> OnArrays:
    """Returns a strided convolution, two 3x3 ones, and one back to pixels."""

    def layers(x: jax.Array, out: int) -> jax.Array:
        stack = DilatedStack(out * BLOCK**2, spec.width or 128, (1, 1))
        return from_blocks(stack(to_blocks(x)), out)[:, : x.shape[1], : x.shape[2]]

    return OnArrays(layers, spec)


def _local(spec: NetworkSpec) -> OnArrays:
    return OnArrays(lambda x, out: LocalStack(out, spec.width)(x), spec)


CONV = Network(_conv, joint=False)
STRIDED = Network(_strided)
LOCAL = Network(_local)
