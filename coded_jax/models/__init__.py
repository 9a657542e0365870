"""Base models: the registry and the networks."""

from coded_jax.models.keras_networks import from_keras as from_keras
from coded_jax.models.registry import BASE_MODELS as BASE_MODELS
from coded_jax.models.registry import make_base_model as make_base_model
