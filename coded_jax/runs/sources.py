"""Digests of the modules that made a result: whether code since could alter it."""

from __future__ import annotations

import ast
import functools
import hashlib
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parents[1]
NATIVE = (".cc", ".h")
DIGITS = 12

# What is left out: it starts, shows, stores and names what others compute.
APART = (
    "coded_jax",
    "coded_jax.checks",
    "coded_jax.cli",
    "coded_jax.report",
    "coded_jax.runs.compile_clock",
    "coded_jax.runs.logs",
    "coded_jax.runs.places",
    "coded_jax.runs.progress",
    "coded_jax.runs.provenance",
    "coded_jax.runs.reading",
    "coded_jax.runs.sources",
    "coded_jax.runs.sweep_table",
    "coded_jax.runs.sweeps",
    "coded_jax.runs.workdir",
    "coded_jax.studies.ray_sweep",
)


def of_process() -> dict[str, str]:
    """Returns the digests of the modules of this package that the process has loaded
    and that can alter the numbers of a result: `{module: 12 hexadecimal digits}`.

    That of a module is the one of its first call: what is loaded stays as it is when
    its file changes.
    """
    return {name: _of_loaded(name) for name in sorted(filter(counts, sys.modules))}


@functools.cache
def _of_loaded(name: str) -> str:
    return _of_module(name, PACKAGE)


def of_modules(names: Iterable[str], package: Path = PACKAGE) -> dict[str, str]:
    """Returns the digests of modules; of one that is missing an empty text.

    Args:
      names: as `coded_jax.codes.sums`.
      package: the folder of `coded_jax`.
    """
    return {name: _of_module(name, package) for name in sorted(names)}


def changed(recorded: Mapping[str, str], package: Path = PACKAGE) -> list[str]:
    """Returns the modules whose code is no longer that of `recorded`.

    Args:
      recorded: `{module: digest}` of a stored result.
      package: the folder of `coded_jax`.
    """
    present = of_modules(recorded, package)
    return [name for name in recorded if present[name] != recorded[name]]


def merged(*records: Mapping[str, str]) -> dict[str, str]:
    """Returns the digests of all records; of a module that several codes had all of
    them in one text, which is no digest, so that the module counts as changed."""
    texts: dict[str, set[str]] = {}
    for record in records:
        for name, text in record.items():
            texts.setdefault(name, set()).update(text.split("+"))
    return {name: "+".join(sorted(texts[name])) for name in sorted(texts)}


def together(record: Mapping[str, str]) -> str:
    """Returns one digest of all modules of a record."""
    return _digest(f"{name} {record[name]}" for name in sorted(record))


def counts(name: str) -> bool:
    """Returns whether a module's code can alter the numbers of a result."""
    parts = name.split(".")
    parents = {".".join(parts[:end]) for end in range(2, len(parts) + 1)}
    return parts[0] == "coded_jax" and name != "coded_jax" and not parents & {*APART}


@functools.cache  # one file stands in the records of hundreds of results
def of_python(text: str) -> str:
    """Returns the digest of Python code, without comments, docstrings and layout."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):  # texts alone: docstrings, of attributes too
            node.body = [line for line in body if not _is_text(line)]  # type: ignore
    return _digest([repr(_structure(tree))])


def _of_module(name: str, package: Path) -> str:
    path = package.joinpath(*name.split(".")[1:])
    files = [path.with_suffix(".py"), path / "__init__.py"]
    file = next((file for file in files if file.exists()), None)
    if file is None:
        return ""
    digest = of_python(file.read_text())
    if name != "coded_jax.cpu_kernels.library":  # it compiles what lies beside it
        return digest
    native = sorted(x for x in file.parent.iterdir() if x.suffix in NATIVE)
    return _digest([digest, *(x.read_text() for x in native)])


def _is_text(node: ast.AST) -> bool:
    value = getattr(node, "value", None) if isinstance(node, ast.Expr) else None
    return isinstance(value, ast.Constant) and isinstance(value.value, str)


def _structure(node: Any) -> Any:
    """Returns what every version of Python says alike: fields that are not empty."""
    if isinstance(node, list):
        return [_structure(item) for item in node]
    if not isinstance(node, ast.AST):
        return node
    fields = [(name, value) for name, value in ast.iter_fields(node)]
    kept = [(name, _structure(x)) for name, x in fields if x is not None and x != []]
    return type(node).__name__, kept


def _digest(texts: Iterable[str]) -> str:
    sha = hashlib.sha256()
    for text in texts:
        sha.update(text.encode() + b"\0")
    return sha.hexdigest()[:DIGITS]
