"""A decoder that mixes the results of each position by itself: cheap on large maps."""

from __future__ import annotations

import jax
from flax import linen as nn

from coded_jax.codes.networks.maps import features_to_maps, maps_to_features
from coded_jax.codes.networks.network import Network


class PointwiseDecoder(nn.Module):
    """Two dense layers along the n*D values of a position, the same at all positions.

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


DECODER = Network(
    lambda spec: PointwiseDecoder(spec.shape.k, spec.joint, spec.width, spec.relu)
)
