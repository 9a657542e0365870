"""Dense networks: those of the paper, Tables I and II, and cheaper decoders."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from flax import linen as nn

from coded_jax.codes.networks.maps import features_to_maps, maps_to_features
from coded_jax.codes.networks.network import Network, NetworkSpec


class MLPEncoder(nn.Module):
    """Two dense layers over all pixels of one channel of all pieces (Table I).

    Attributes:
      r: parity pieces.
      width: of the hidden layer; `k*h*w` if None.
    """

    r: int
    width: int | None = None

    @nn.compact
    def __call__(self, pieces: jax.Array) -> jax.Array:
        """Maps `[k, B, h, w, C] -> [r, B, h, w, C]`; channels share their weights."""
        k, batch, h, w, channels = pieces.shape
        x = pieces.transpose(1, 4, 0, 2, 3).reshape(batch, channels, k * h * w)
        x = nn.relu(nn.Dense(self.width or k * h * w)(x))
        x = nn.Dense(self.r * h * w)(x)
        return x.reshape(batch, channels, self.r, h, w).transpose(2, 0, 3, 4, 1)


class MLPDecoder(nn.Module):
    """Three dense layers over the features of all results (Table II).

    Attributes:
      k: shares to reconstruct.
      joint: all D channels together, or each on its own with shared weights.
      width: of the two hidden layers; as the last layer if None.
      relu: whether the outputs are never negative, as features after a ReLU are.
    """

    k: int
    joint: bool = True
    width: int | None = None
    relu: bool = True

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        """Maps `[n, B, M, M', D] -> [k, B, M, M', D]`."""
        n, batch, m, m2, depth = features.shape
        groups, inner = (1, depth) if self.joint else (depth, 1)
        x = features.reshape(n, batch, m, m2, groups, inner)
        x = x.transpose(1, 4, 0, 2, 3, 5).reshape(batch, groups, n * m * m2 * inner)
        out = self.k * m * m2 * inner
        for width in (self.width or out, self.width or out):
            x = nn.relu(nn.Dense(width)(x))
        x = nn.Dense(out)(x)
        x = nn.relu(x) if self.relu else x
        x = x.reshape(batch, groups, self.k, m, m2, inner).transpose(2, 0, 3, 4, 1, 5)
        return jnp.reshape(x, (self.k, batch, m, m2, depth))


class PointwiseDecoder(nn.Module):
    """Two dense layers along the n*D values of a position, the same at all positions:
    it mixes the results of each position by itself, which is cheap on large maps.

    Its work is `M M' width (n D + k D)` products; a width below D makes it a low-rank
    mixing of the results.

    Attributes:
      k: shares to reconstruct.
      joint: the n*D feature maps together, or each of the D channels on its own, with
        shared weights and n input maps.
      width: of the hidden layer; a quarter of D if None.
      relu: whether the outputs are never negative, as features after a ReLU are.
    """

    k: int
    joint: bool = True
    width: int | None = None
    relu: bool = True

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        """Maps `[n, B, M, M', D] -> [k, B, M, M', D]`."""
        depth = features.shape[-1]
        width = self.width or max(1, depth // 4)
        x = nn.Dense(width)(features_to_maps(features, self.joint))
        x = nn.Dense(self.k * (depth if self.joint else 1))(nn.relu(x))
        return maps_to_features(nn.relu(x) if self.relu else x, self.k, depth)


def _decoder(spec: NetworkSpec) -> MLPDecoder:
    return MLPDecoder(spec.shape.k, spec.joint, spec.width, spec.relu)


def _low_rank_decoder(spec: NetworkSpec) -> MLPDecoder:
    """Returns the decoder with `ceil(sqrt(3 D))` hidden values by default."""
    rank = math.ceil(math.sqrt(3 * spec.shape.share[-1]))
    return _decoder(spec._replace(width=spec.width or rank))


ENCODER = Network(lambda spec: MLPEncoder(spec.shape.r, spec.width))
DECODER = Network(_decoder)
LOW_RANK_DECODER = Network(_low_rank_decoder)
POINTWISE_DECODER = Network(
    lambda spec: PointwiseDecoder(spec.shape.k, spec.joint, spec.width, spec.relu)
)
