"""The modules of the package and of the scripts, each with its one idea in a line."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterable
from pathlib import Path

from tables import markdown

ROOT = Path(__file__).parents[2]
PACKAGE, EXPERIMENTS = ROOT / "coded_jax", ROOT / "experiments"


def layers() -> list[str]:
    """Returns the packages and modules of `coded_jax`, the lowest first.

    They stand in the contracts of `pyproject.toml`.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contracts = project["tool"]["importlinter"]["contracts"]
    (order,) = (x["layers"] for x in contracts if x["type"] == "layers")
    return order[::-1]


def idea(path: Path) -> str:
    """Returns the first sentence or line of a module's docstring.

    Raises:
      ValueError: it has none.
    """
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    if not docstring:
        raise ValueError(f"{path}: no docstring given, one line or more accepted")
    return " ".join(docstring.split("\n\n")[0].split())


def package_section() -> str:
    """Returns a table of the packages, in their order, and of their modules."""
    rows = []
    for name in layers():
        if (PACKAGE / f"{name}.py").exists():
            rows.append([f"**`{name}`**", idea(PACKAGE / f"{name}.py")])
        else:
            rows += _rows(PACKAGE / name, name)
    return markdown.table(["Module", "One idea"], rows)


def scripts_section() -> str:
    """Returns a table of the commands in `experiments/`, and of what they share."""
    scripts = sorted(EXPERIMENTS.glob("*.py"))
    rows = [[f"`{path.name}`", idea(path)] for path in scripts]
    for name in ("tables", "benchmarks"):
        rows += _rows(EXPERIMENTS / name, name)
    return markdown.table(["Script or module", "One idea"], rows)


def _rows(folder: Path, name: str) -> Iterable[list[str]]:
    """Yields a row for a package, for each of its modules, and for packages in it."""
    yield [f"**`{name}`**", f"**{idea(folder / '__init__.py')}**"]
    for path in sorted(folder.glob("*.py")):
        if path.stem != "__init__":
            yield [f"`{name}.{path.stem}`", idea(path)]
    for path in sorted(folder.glob("*/__init__.py")):
        yield from _rows(path.parent, f"{name}.{path.parent.name}")
