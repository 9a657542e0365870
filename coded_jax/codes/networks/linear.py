"""No network: the linear part of a systematic code alone."""

from __future__ import annotations

from coded_jax.codes.networks.network import Network

NONE = Network(lambda spec: None, systematic_only=True, has_width=False)
