"""First k of n: responses as soon as enough workers have theirs, see `serve`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coded_jax.serving.config import ServeConfig
    from coded_jax.serving.engine import Closed, NotEnoughResults, WrongResults
    from coded_jax.serving.faults import Faults
    from coded_jax.serving.response import Response
    from coded_jax.serving.service import Overloaded, Service
    from coded_jax.serving.start import ENGINES, serve

__all__ = [
    "ENGINES",
    "Closed",
    "Faults",
    "NotEnoughResults",
    "Overloaded",
    "Response",
    "ServeConfig",
    "Service",
    "WrongResults",
    "serve",
]

_MODULES = {
    "Closed": "engine",
    "ENGINES": "start",
    "Faults": "faults",
    "NotEnoughResults": "engine",
    "Overloaded": "service",
    "Response": "response",
    "ServeConfig": "config",
    "Service": "service",
    "WrongResults": "engine",
    "serve": "start",
}
"""The module in which each name is defined."""


def __getattr__(name: str) -> Any:
    # Lazy, so that a worker's process imports `piece_server` and no more.
    if name in _MODULES:
        return getattr(import_module(f"coded_jax.serving.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
