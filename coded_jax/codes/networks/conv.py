"""ConvEncoder and ConvDecoder of the paper, Tables I and II: dilated convolutions."""

from __future__ import annotations

import jax
from flax import linen as nn

from coded_jax.codes.networks.maps import MapsDecoder, MapsEncoder, Stack
from coded_jax.codes.networks.network import Network, NetworkSpec
from coded_jax.cpu_kernels.layer import Layer, convolution_layer

DILATIONS = (1, 1, 2, 4, 8, 1)


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

    Attributes:
      out: output maps.
      size: rows and columns of the kernel, an odd number.
      dilation: along both axes.
      relu: whether a ReLU follows.
    """

    out: int
    size: int
    dilation: int = 1
    relu: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[B, h, w, maps] -> [B, h, w, out]`."""
        shape = (self.size, self.size, x.shape[-1], self.out)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros_init(), (self.out,))
        # The taps that reach a map: less than its size off the middle one.
        middle, dilation = self.size // 2, self.dilation
        reach = [min(middle, (size - 1) // dilation) for size in x.shape[1:3]]
        rows, columns = (slice(middle - i, middle + i + 1) for i in reach)
        layer = Layer(self.relu, dilation=(dilation, dilation))
        return convolution_layer(x, kernel[rows, columns], bias, layer)


def _stack(spec: NetworkSpec) -> Stack:
    return lambda out: DilatedStack(out, spec.width, spec.dilations, spec.kernel)


ENCODER = Network(lambda spec: MapsEncoder(_stack(spec), spec.shape.r))
DECODER = Network(
    lambda spec: MapsDecoder(_stack(spec), spec.shape.k, spec.joint, spec.relu),
    joint=False,
)
