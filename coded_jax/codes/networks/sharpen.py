"""A decoder that sharpens the stretched results of smaller images.

It is an inverted residual (Sandler et al. 2018) with ReLU: 1x1 to few values, 3x3 in
each of them, 1x1 to the features. It reads what the parity results say of a lost share,
and the part of the stage's own input that the share comes from, which the client has
kept (as joint upsampling does, Kopf et al. 2007). Which results arrived scales and
shifts its hidden values (FiLM, Perez et al. 2018), so that one network serves all
erasure patterns.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from coded_jax.codes.networks.network import Network, NetworkSpec
from coded_jax.cpu_kernels.layer import Layer, convolution_layer


class Sharpen(nn.Module):
    """Corrects the estimates of some shares.

    Attributes:
      out: D, feature maps.
      width: hidden values of a position.
      reads: what it reads beside the results, see `network.READS`.
    """

    out: int
    width: int
    reads: str

    @nn.compact
    def __call__(
        self, stretched: jax.Array, source: jax.Array, state: jax.Array
    ) -> jax.Array:
        """Maps q shares of B images to corrections.

        Args:
          stretched: `[N, M, M', r*D]`, of q*B = N shares.
          source: `[N, M, M', S*S*C]`, the pixels of each position.
          state: `[N, Q]`, which share it is and which results arrived.

        Returns:
          `[N, M, M', D]`.
        """
        width, init = self.width, nn.initializers
        if self.reads in ("all", "pattern"):
            state = state.astype(source.dtype)
            film = nn.Dense(4 * width, kernel_init=init.zeros, name="film")(state)
        else:  # the same for all patterns
            film = self.param("film", init.zeros, (1, 4 * width)).astype(source.dtype)
        scale, shift, later_scale, later_shift = jnp.split(film[:, None, None], 4, -1)
        x = nn.Dense(width, name="results")(stretched)
        if self.reads in ("all", "input"):
            x += nn.Dense(width, use_bias=False, name="source")(source)
        x = nn.relu(x * (1 + scale) + shift)
        kernel = self.param("kernel", init.lecun_normal(), (3, 3, 1, width))
        bias = jnp.zeros(width, x.dtype)
        layer = Layer(relu=False, groups=width)
        x = convolution_layer(x, kernel.astype(x.dtype), bias, layer)
        x = nn.relu(x * (1 + later_scale) + later_shift)
        small = init.variance_scaling(0.01, "fan_in", "truncated_normal")
        return nn.Dense(self.out, kernel_init=small, name="features")(x)


def _decoder(spec: NetworkSpec) -> Sharpen:
    depth = spec.shape.share[-1]
    # The views of more parity results do not make it dearer.
    width = spec.width or max(1, depth // (spec.shape.r + 1))
    return Sharpen(depth, width, spec.reads)


DECODER = Network(_decoder, systematic_only=True, guided=True)
