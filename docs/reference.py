"""Builds the API reference from the docstrings, with every warning an error.

python docs/reference.py site  # then open site/index.html
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
import re
import sys
import typing
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import jax
import pdoc
from flax import linen as nn

import coded_jax


def modules() -> Iterator[ModuleType]:
    """Yields all modules of the package."""
    for module in pkgutil.walk_packages(coded_jax.__path__, "coded_jax."):
        yield importlib.import_module(module.name)


def describe_fields(record: type) -> None:
    """Gives the fields of a NamedTuple the comments behind them as docstrings.

    They replace Python's own, "Alias for field number 0".
    """
    lines = inspect.getsource(record).splitlines()
    fields = (re.match(r"    (\w+): .+?  # (.+)", line) for line in lines)
    comments = dict(match.groups() for match in fields if match)
    for field in record._fields:
        getattr(record, field).__doc__ = comments.get(field, "")
    # Python makes it in a namespace of its own, where its annotations mean nothing.
    record.__new__.__module__ = record.__module__
    record.__new__.__doc__ = ""


def hide_flax(network: type) -> None:
    """Takes away what Flax adds to the fields of a network."""
    for name in ("parent", "name", "scope"):
        network.__annotations__.pop(name, None)
        delattr(network, name)


def resolve_fields(record: type) -> None:
    """Evaluates the types of a dataclass's fields, of which some are inherited.

    Their names mean nothing in the module of the class that inherits them.
    """
    types = typing.get_type_hints(record)
    fields = {field.name: types[field.name] for field in dataclasses.fields(record)}
    record.__init__.__annotations__ |= fields


def show_lazy_names() -> None:
    """Makes pdoc find the public face, and all packages beside it."""
    for name in coded_jax.__all__:
        setattr(coded_jax, name, getattr(coded_jax, name))
    children = [module.name for module in pkgutil.iter_modules(coded_jax.__path__)]
    coded_jax.__all__ = list(dict.fromkeys([*coded_jax.__all__, *children]))


def main(folder: str) -> None:
    warnings.simplefilter("error")
    for module in modules():
        for _, value in inspect.getmembers(module, inspect.isclass):
            if value.__module__ != module.__name__:
                continue
            if hasattr(value, "_fields"):
                describe_fields(value)
            elif issubclass(value, nn.Module):
                hide_flax(value)
            elif any(map(dataclasses.is_dataclass, value.__bases__)):
                resolve_fields(value)
    show_lazy_names()
    jax.Array.__qualname__ = "Array"  # and not with where they are made
    jax.sharding.Mesh.__module__ = "jax.sharding"
    pdoc.render.configure(docformat="google")
    pdoc.pdoc("coded_jax", output_directory=Path(folder))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"error: arguments: {sys.argv[1:]} given, one folder accepted")
    main(sys.argv[1])
