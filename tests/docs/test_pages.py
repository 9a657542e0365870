"""The pages of docs/, of which every block of code is run, and what they promise."""

import ast
import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys
import tomllib
from typing import NamedTuple

import pytest

import coded_jax
from tests.scripts import modules_in, run_script

ROOT = pathlib.Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = ["README.md", *(str(x.relative_to(ROOT)) for x in sorted(DOCS.rglob("*.md")))]
"""How many blocks of a page nobody runs here; each says why."""
COMPUTE = {"docs/guides/segment.md"}
"""Pages whose commands compute for longer than they compile, as users run them."""
COLAB = ROOT / "colab"
INSTALL = re.compile(r"pip install -e '\.\[([\w,]+)\]'")


class Block(NamedTuple):
    reason: str
    """Why it is not run: `<!-- not run: WHY -->` stands above it. Else empty."""
    language: str
    text: str


BLOCK = re.compile(
    r"(?:^<!-- not run: ([^\n]+) -->\n)?^```(\S*)[^\n]*\n(.*?)^```$", re.M | re.S
)


def blocks(text):
    """All that stands between fences, in order."""
    return [Block(*block) for block in BLOCK.findall(text)]


def page_blocks(page):
    return blocks((ROOT / page).read_text())


def kind(block):
    """How a block is tested. There is none for what nobody would run.

    A `file` is Python whose first line is its name, for later blocks to import or run;
    other `python` blocks of a page share a namespace. A `server` runs while the blocks
    after it do. A `directive` is Sphinx's.
    """
    if block.reason:
        return "not run"
    if block.language.startswith("{"):
        return "directive"
    if block.language == "python":
        return "file" if re.match(r"# \w+\.py\n", block.text) else "python"
    if block.language == "bash":
        return "server" if "experiments/serve.py" in block.text else "bash"
    if block.language == "text":
        return "output"
    raise AssertionError(
        f"a block of {block.language!r} that is not run:\n{block.text}"
    )


class Server:
    """One command of a guide that answers until Ctrl-C, or none."""

    process = None

    def start(self, text):
        self.stop()
        self.process = subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", f"exec {text}"],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert "runs/first on http" in self.process.stdout.readline()

    def stop(self):
        if self.process is not None:
            # As Ctrl-C, which children of a shell's background job ignore.
            self.process.send_signal(signal.SIGTERM)
            out, _ = self.process.communicate(timeout=600)
            assert self.process.returncode == 0 and re.search("[1-9] answered", out)
            self.process = None


def run_bash(text):
    """Installations are not carried out, since the environment of the tests has all;
    the extras that they name must exist."""
    others = []
    for line in text.splitlines():
        if line.startswith("pip install"):
            project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
            extras = set(INSTALL.fullmatch(line)[1].split(","))
            assert extras <= project["optional-dependencies"].keys()
        else:
            others.append(line)
    command = ["bash", "-euo", "pipefail", "-c", "\n".join(others)]
    subprocess.run(command, check=True)


def commands(page):
    """Name and arguments of every script of `experiments/` that a page runs."""
    for block in page_blocks(page):
        if block.language == "bash":
            for line in block.text.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True) if "$" not in line else []
                if words[:1] == ["python"] and words[1].startswith("experiments/"):
                    yield pathlib.Path(words[1]).stem, words[2:]


@pytest.mark.long
def test_scripts_accept_the_flags_of_pages():
    for script, arguments in (x for page in PAGES for x in commands(page)):
        # Before that run its workdir has no flagfile.
        own = re.compile(r"--flagfile=(runs/.*)/flags.txt")
        arguments = [own.sub(r"--workdir=\1", argument) for argument in arguments]
        done = run_script(script, *arguments, "--only_check_args")
        assert done.returncode == 0, f"{script} {arguments}: {done.stderr}"


def test_the_package_has_what_pages_import():
    for block in (x for page in PAGES for x in page_blocks(page)):
        if block.language == "python":
            for node in ast.walk(ast.parse(block.text)):
                if isinstance(node, ast.ImportFrom) and "coded_jax" in node.module:
                    names = ", ".join(alias.name for alias in node.names)
                    exec(f"from {node.module} import {names}", {})


def run_blocks(page, code_blocks, folder):
    """Runs code blocks of a page in order, with one scope for all, and returns it."""
    scope, server = {"__name__": page}, Server()
    try:
        with modules_in(folder):
            for block in code_blocks:
                match kind(block):
                    case "file":
                        name = block.text.split(maxsplit=2)[1]
                        (folder / name).write_text(block.text)
                    case "python":
                        exec(compile(block.text, page, "exec"), scope)
                    case "bash":
                        run_bash(block.text)
                    case "server":
                        server.start(block.text)
        server.stop()
    finally:
        if server.process is not None:
            server.process.kill()
    return scope


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A folder in which the first run of the guides is finished, by their command."""
    folder = tmp_path_factory.mktemp("guides")
    for name in ("experiments", "docs"):
        (folder / name).symlink_to(ROOT / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv(
            "PATH", f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"
        )
        train = page_blocks("docs/guides/train.md")
        run_bash(next(block.text for block in train if "run.py" in block.text))
        (folder / "runs/quickstart").symlink_to("first")  # with fewer epochs
        yield folder


def is_run(page):
    return {"file", "python", "bash", "server"} & set(map(kind, page_blocks(page)))


@pytest.mark.parametrize("page", [*filter(is_run, PAGES[1:])])
@pytest.mark.long
def test_every_block_of_a_page(page, first, monkeypatch):
    if page in COMPUTE:
        monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "0")
        monkeypatch.setenv("XLA_FLAGS", "")
    run_blocks(page, page_blocks(page), first)


@pytest.mark.long
def test_the_python_of_the_readme(first):
    """With a run of fewer epochs in the place of its first command."""
    lines = [x for x in page_blocks("README.md") if x.language == "python"]
    guide = page_blocks("docs/guides/own_cnn.md")
    files = [block for block in guide if kind(block) == "file"]
    scope = run_blocks("README.md", [*files, *lines], first)
    results = scope["model"].results
    base, baselines = results["base"]["test_accuracy"], results["baselines"]
    assert base > 0.9 and results["summary"]["0"]["mean"] == base
    coded = results["summary"]["1"]["mean"]
    assert coded > baselines["no_parity"]["1"]["mean"]
    assert coded > baselines["zero_fill"]["1"]["mean"] + 0.05


def test_links_between_pages():
    """Files that are there; of other pages, headings that they have."""
    for page in [*PAGES, "CHANGELOG.md", "CONTRIBUTING.md"]:
        path = ROOT / page
        for link in re.findall(r"\]\((?!https?:)([^)\s]*)\)", path.read_text()):
            name, _, anchor = link.partition("#")
            target = (path.parent / name).resolve() if name else path
            if target.parent == DOCS / "notebooks":  # whither the build copies them
                target = ROOT / "colab" / target.name
            assert target.exists(), f"{page}: {link}"
            if anchor:
                headings = re.findall(r"^#+ (.*)$", target.read_text(), re.M)
                assert anchor in map(anchor_of, headings), f"{page}: {link}"


def anchor_of(heading):
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def test_every_page_is_in_the_contents_of_the_site():
    """As Sphinx asks for, which the long tests run."""
    trees = re.findall(
        r"^```{toctree}$(.*?)^```$", (DOCS / "index.md").read_text(), re.M | re.S
    )
    listed = {x.split("<")[-1].rstrip(">") for x in " ".join(trees).split("\n")}
    pages = {str(x.relative_to(DOCS).with_suffix("")) for x in DOCS.rglob("*.md")}
    generated = {x for x in pages if x.startswith(("reference/generated", "_"))}
    assert pages - generated - listed <= {"index", "notebooks/index"}


def test_the_reference_has_the_packages_of_the_contracts():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contracts = project["tool"]["importlinter"]["contracts"]
    layers = next(x["layers"] for x in contracts if x["type"] == "layers")
    page = (DOCS / "reference/index.md").read_text()
    listed = re.findall(r"^   coded_jax\.(\w+)$", page, re.M)
    assert sorted([*listed, "__main__"]) == sorted(layers)


def test_the_public_face_has_its_page():
    page = (DOCS / "reference/coded_jax.md").read_text()
    listed = re.findall(r"auto(?:function|class):: (\w+)", page)
    assert sorted(listed) == sorted(coded_jax._MODULES)


def documented(path):
    """`(name, names it may follow, docstring)` of all that is not private."""
    module = ast.parse(path.read_text())
    yield str(path.relative_to(ROOT)), (), ast.get_docstring(module)
    for node in module.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name[0] != "_":
            yield node.name, (), ast.get_docstring(node)
            bases = [*map(ast.unparse, getattr(node, "bases", []))]
            for inner in node.body if isinstance(node, ast.ClassDef) else []:
                if isinstance(inner, ast.FunctionDef) and inner.name[0] != "_":
                    followed = tuple(f"{base}.{inner.name}" for base in bases)
                    name = f"{node.name}.{inner.name}"
                    yield name, followed, ast.get_docstring(inner)


def test_everything_public_has_a_docstring():
    """What follows a base class or a Protocol has those of their methods."""
    entries = [
        entry
        for path in (ROOT / "coded_jax").rglob("*.py")
        for entry in documented(path)
    ]
    assert len(entries) > 400
    told = {name for name, _, doc in entries if doc}
    missing = {name: followed for name, followed, doc in entries if not doc}
    of_protocols = {
        name.split(".")[1]
        for name, followed, doc in entries
        if doc and any(x.startswith("Protocol.") for x in followed)
    }
    assert not {
        name
        for name, followed in missing.items()
        if told.isdisjoint(followed) and name.split(".")[-1] not in of_protocols
    }
