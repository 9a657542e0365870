"""First k of n: responses as soon as enough workers have theirs, see `serve`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coded_jax.service.config import ServeConfig as ServeConfig
    from coded_jax.service.faults import Faults as Faults
    from coded_jax.service.gathering import Closed as Closed
    from coded_jax.service.gathering import NotEnoughResults as NotEnoughResults
    from coded_jax.service.gathering import WrongResults as WrongResults
    from coded_jax.service.requests import Response as Response
    from coded_jax.service.service import Overloaded as Overloaded
    from coded_jax.service.service import Service as Service
    from coded_jax.service.start import ENGINES as ENGINES
    from coded_jax.service.start import serve as serve

_NAMES = {
    "config": ["ServeConfig"],
    "faults": ["Faults"],
    "gathering": ["Closed", "NotEnoughResults", "WrongResults"],
    "requests": ["Response"],
    "service": ["Overloaded", "Service"],
    "start": ["ENGINES", "serve"],
}
"""The names that each module defines."""


def __getattr__(name: str) -> Any:
    # Lazy, so that a worker's process imports `parts` and no more.
    for module, names in _NAMES.items():
        if name in names:
            return getattr(import_module(f"coded_jax.service.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *sum(_NAMES.values(), [])})
