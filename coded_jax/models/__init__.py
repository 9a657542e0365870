"""Base models. A new one is a file with a `make() -> BaseModel` and a line here."""

from __future__ import annotations

from coded_jax.models import lenet5
from coded_jax.types import BaseModel

BASE_MODELS = {"lenet5": lenet5.make}


def make_base_model(name: str) -> BaseModel:
    """The base model called `name`.

    Raises:
      ValueError: there is none.
    """
    if name not in BASE_MODELS:
        raise ValueError(f"base_model: {name!r} given, {list(BASE_MODELS)} accepted")
    return BASE_MODELS[name]()
