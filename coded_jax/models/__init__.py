"""Base models. A new one is a file with a `width -> BaseModel` and a line here."""

from __future__ import annotations

from coded_jax.models import lenet5, mobilenet, resnet, vgg
from coded_jax.types import BaseModel

BASE_MODELS = {
    "lenet5": lenet5.lenet5,
    "vgg16": vgg.vgg16,
    "resnet18": resnet.resnet18,
    "mobilenet": mobilenet.mobilenet,
}


def make_base_model(name: str, width: float = 1.0) -> BaseModel:
    """The base model called `name`.

    Args:
      name: one of `BASE_MODELS`.
      width: times the maps of the published network.

    Raises:
      ValueError: there is none of that name.
    """
    if name not in BASE_MODELS:
        raise ValueError(f"base_model: {name!r} given, {list(BASE_MODELS)} accepted")
    return BASE_MODELS[name](width)
