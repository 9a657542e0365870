"""First k of n: responses as soon as enough workers have theirs, see `serve`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coded_jax.serving.config import ServeConfig as ServeConfig
    from coded_jax.serving.engine import Closed as Closed
    from coded_jax.serving.engine import NotEnoughResults as NotEnoughResults
    from coded_jax.serving.engine import WrongResults as WrongResults
    from coded_jax.serving.faults import Faults as Faults
    from coded_jax.serving.response import Response as Response
    from coded_jax.serving.service import Overloaded as Overloaded
    from coded_jax.serving.service import Service as Service
    from coded_jax.serving.start import ENGINES as ENGINES
    from coded_jax.serving.start import serve as serve

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
    return sorted({*globals(), *_MODULES})
