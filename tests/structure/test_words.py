"""The words of docstrings and the sizes of pages: one linter for all modules."""

import ast
import pathlib
import re

ROOT = pathlib.Path(__file__).parents[2]
MODULES = sorted((ROOT / "coded_jax").rglob("*.py"))
# A docstring names the value: "Returns the fault, or None", not "Returns what ails it".
RIDDLE = re.compile(
    r"(What|Of|Which|How|Whether|Where|When|As|Each|Those|That|All|The same|Them|It"
    r"|(?:Returns|Yields|Finds) (?:what|who|whom|whose|which|where|when|how)"
    r"|(?:Says|Tells) \w+)\b"
)
VERB = re.compile(r"[A-Z][a-z]+s\b")  # in the third person
LARGEST_PAGE, LARGEST_README = 15_000, 8_000  # bytes


def defects_of(path):
    """Yields the names of all that a module describes badly, with the reason."""
    module = ast.parse(path.read_text())
    if not ast.get_docstring(module):
        yield f"{path}: no docstring"
    for node in ast.walk(module):
        if not isinstance(node, ast.FunctionDef | ast.ClassDef):
            continue
        text, name = ast.get_docstring(node) or "", f"{path}: {node.name}"
        decorators = {ast.unparse(decorator) for decorator in node.decorator_list}
        is_property = decorators & {"property", "functools.cached_property"}
        if RIDDLE.match(text):
            yield f"{name}: a riddle: {text.splitlines()[0]}"
        elif isinstance(node, ast.FunctionDef) and text and not is_property:
            if not VERB.match(text):
                yield f"{name}: no verb: {text.splitlines()[0]}"


def test_docstrings_and_pages():
    defects = [defect for path in MODULES for defect in defects_of(path)]
    for page in [*(ROOT / "docs").rglob("*.md"), ROOT / "README.md"]:
        most = LARGEST_README if page.name == "README.md" else LARGEST_PAGE
        if (size := page.stat().st_size) > most:
            defects.append(f"{page}: {size} bytes, at most {most} accepted")
    assert not defects, "\n".join(defects)


def imported(path):
    """Names of the modules that a module imports, and of what it takes of them."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = f"{getattr(node, 'module', '') or ''}."
            yield from (f"{module}{alias.name}".lstrip(".") for alias in node.names)


def test_flags_are_read_by_commands_alone():
    """The library takes records: flags stand in `cli` and in `experiments/`."""
    users = {
        path.relative_to(ROOT).as_posix()
        for path in MODULES
        if {"absl", "absl.app", "absl.flags"} & {*imported(path)}
    }
    assert users and all(user.startswith("coded_jax/cli/") for user in users), users
