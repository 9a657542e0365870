"""The words of docstrings, and where absl may stand."""

import ast
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[2]
PACKAGE = ROOT / "coded_jax"
MODULES = sorted(PACKAGE.rglob("*.py"))
# A docstring says what a function does: "Returns ...", not what its result is of.
RIDDLES = re.compile(
    r"(What|Of|Which|How|Whether|Where|When|As|Each|Those|That|All|The same|Them|It)\b"
)
VERB = re.compile(r"[A-Z][a-z]+s\b")  # in the third person


def name_of(path):
    return str(path.relative_to(ROOT))


def described(path):
    """Functions and classes, private ones too: name and docstring."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name, ast.get_docstring(node) or ""


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_docstrings_are_no_riddles(path):
    riddles = [name for name, text in described(path) if RIDDLES.match(text)]
    assert riddles == []


def functions(path):
    """Functions that have a docstring and are no properties: name and docstring."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef) and (text := ast.get_docstring(node)):
            decorators = {ast.unparse(decorator) for decorator in node.decorator_list}
            if not decorators & {"property", "functools.cached_property"}:
                yield node.name, text


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_docstrings_of_functions_begin_with_a_verb(path):
    assert [name for name, text in functions(path) if not VERB.match(text)] == []


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_module_says_its_idea(path):
    assert ast.get_docstring(ast.parse(path.read_text()))


def imported(path):
    """Names of the modules that a module imports, and of what it takes of them."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = f"{getattr(node, 'module', '') or ''}."
            yield from (f"{module}{alias.name}".lstrip(".") for alias in node.names)


def test_flags_are_read_by_commands_alone():
    """The library takes records: flags stand in `cli` and in `experiments/`."""
    users = {
        name_of(path)
        for path in MODULES
        if {"absl", "absl.app", "absl.flags"} & {*imported(path)}
    }
    assert users and all(user.startswith("coded_jax/cli/") for user in users), users
