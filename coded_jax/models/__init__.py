"""Base models: the registry, the networks, and convolutions that are fast on CPUs."""

from coded_jax.models.registry import BASE_MODELS as BASE_MODELS
from coded_jax.models.registry import make_base_model as make_base_model
