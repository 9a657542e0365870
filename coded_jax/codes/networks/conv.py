"""ConvEncoder and ConvDecoder, Tables I and II of the paper: dilated convolutions."""

from __future__ import annotations

import jax
from flax import linen as nn

from coded_jax.codes.networks.maps import (
    features_to_maps,
    maps_to_features,
    maps_to_pieces,
    pieces_to_maps,
)
from coded_jax.codes.networks.network import Network
from coded_jax.cpu_kernels.layer import convolution_layer

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
        width, sizes = self.width or 20 * x.shape[-1], (self.kernel, self.kernel)
        for i, dilation in enumerate(self.dilations):
            x = _Convolution(width, sizes, dilation, relu=True, name=f"Conv_{i}")(x)
        last = f"Conv_{len(self.dilations)}"
        return _Convolution(self.out, (1, 1), relu=False, name=last)(x)


class _Convolution(nn.Module):
    """A layer with the parameters of `nn.Conv`, without taps that see padding alone.

    On a map of 4x4 a 3x3 kernel with a dilation of 4 or more is a 1x1 kernel.

    Attributes:
      out: output maps.
      kernel: sizes of the kernel, odd ones.
      dilation: along both axes.
      relu: whether a ReLU follows.
    """

    out: int
    kernel: tuple[int, int]
    dilation: int = 1
    relu: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[B, h, w, maps] -> [B, h, w, out]`."""
        shape = (*self.kernel, x.shape[-1], self.out)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros_init(), (self.out,))
        rows, columns = (
            _live_taps(taps, size, self.dilation)
            for taps, size in zip(self.kernel, x.shape[1:3], strict=True)
        )
        return convolution_layer(
            x,
            kernel[rows, columns],
            bias,
            relu=self.relu,
            dilation=(self.dilation, self.dilation),
        )


def _live_taps(taps: int, size: int, dilation: int) -> slice:
    """Returns the taps that reach a map of `size`: less than it off the middle one."""
    reach = min(taps // 2, (size - 1) // dilation)
    return slice(taps // 2 - reach, taps // 2 + reach + 1)


class ConvEncoder(nn.Module):
    """Dilated convolutions over the k pieces as input maps (Table I).

    Attributes:
      r: parity pieces.
      width, dilations, kernel: as in `DilatedStack`.
    """

    r: int
    width: int | None = None
    dilations: tuple[int, ...] = DILATIONS
    kernel: int = 3

    @nn.compact
    def __call__(self, pieces: jax.Array) -> jax.Array:
        """Maps `[k, B, h, w, C] -> [r, B, h, w, C]`; channels share their weights."""
        stack = DilatedStack(self.r, self.width, self.dilations, self.kernel)
        return maps_to_pieces(stack(pieces_to_maps(pieces)), pieces.shape[-1])


class ConvDecoder(nn.Module):
    """Dilated convolutions over the features of all results (Table II).

    Attributes:
      k: shares to reconstruct.
      joint: the n*D feature maps together, or each of the D channels on its own, with
        shared weights and n input maps.
      width, dilations, kernel: as in `DilatedStack`.
      relu: whether the outputs are never negative, as features after a ReLU are.
    """

    k: int
    joint: bool = False
    width: int | None = None
    dilations: tuple[int, ...] = DILATIONS
    kernel: int = 3
    relu: bool = True

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        """Maps `[n, B, M, M', D] -> [k, B, M, M', D]`."""
        depth = features.shape[-1]
        out = self.k * (depth if self.joint else 1)
        stack = DilatedStack(out, self.width, self.dilations, self.kernel)
        x = stack(features_to_maps(features, self.joint))
        return maps_to_features(nn.relu(x) if self.relu else x, self.k, depth)


ENCODER = Network(
    lambda spec: ConvEncoder(spec.shape.r, spec.width, spec.dilations, spec.kernel)
)
DECODER = Network(
    lambda spec: ConvDecoder(
        spec.shape.k, spec.joint, spec.width, spec.dilations, spec.kernel, spec.relu
    ),
    joint=False,
)
