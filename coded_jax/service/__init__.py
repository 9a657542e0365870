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

_MODULES = {
    "Closed": "gathering",
    "ENGINES": "start",
    "Faults": "faults",
    "NotEnoughResults": "gathering",
    "Overloaded": "service",
    "Response": "requests",
    "ServeConfig": "config",
    "Service": "service",
    "WrongResults": "gathering",
    "serve": "start",
}
"""The module in which each name is defined."""


def __getattr__(name: str) -> Any:
    # Lazy, so that a worker's process imports `parts` and no more.
    if name in _MODULES:
        return getattr(import_module(f"coded_jax.service.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
