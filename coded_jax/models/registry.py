"""Base models by name. A new one is a file beside this one and a line here."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from coded_jax.checks import require
from coded_jax.models import lenet5, mlp, mobilenet, resnet, unet, vgg
from coded_jax.types import BaseModel


class ModelEntry(NamedTuple):
    """A registered network.

    Attributes:
      make: `width -> BaseModel`, of so many times the published maps.
      deep: whether dense codes would cost more than the network gains; by default its
        systematic codes are then linear and low_rank.
    """

    make: Callable[[float], BaseModel]
    deep: bool


BASE_MODELS: dict[str, ModelEntry] = {
    "lenet5": ModelEntry(lenet5.lenet5, deep=False),
    "mlp": ModelEntry(mlp.mlp, deep=False),
    "unet": ModelEntry(unet.unet, deep=False),
    "vgg16": ModelEntry(vgg.vgg16, deep=True),
    "resnet18": ModelEntry(resnet.resnet18, deep=True),
    "resnet50": ModelEntry(resnet.resnet50, deep=True),
    "mobilenet": ModelEntry(mobilenet.mobilenet, deep=True),
    "mobilenet_v2": ModelEntry(mobilenet.mobilenet_v2, deep=True),
}


def make_base_model(name: str, width: float = 1.0) -> BaseModel:
    """Makes the base model called `name`.

    Args:
      name: one of `BASE_MODELS`.
      width: times the maps of the published network.

    Raises:
      ValueError: there is none of that name.
    """
    require("base_model", name, name in BASE_MODELS, f"one of {list(BASE_MODELS)}")
    return BASE_MODELS[name].make(width)


def is_deep(name: str) -> bool:
    """Returns whether a registered network is deep; those of users count as not."""
    return name in BASE_MODELS and BASE_MODELS[name].deep
