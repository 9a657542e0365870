"""The site that Sphinx builds of the pages, the notebooks and the docstrings."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built as `nox -s docs` does, beside a copy of its sources."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(
        ROOT / "docs",
        folder / "docs",
        ignore=shutil.ignore_patterns("*.ipynb", "generated"),
    )
    for path in ROOT.glob("*.md"):
        shutil.copy(path, folder)
    for name in ("colab", "experiments"):
        (folder / name).symlink_to(ROOT / name)
    (session,) = re.findall(r"options = \((.*)\)", (ROOT / "noxfile.py").read_text())
    options = re.findall(r'"(.+?)"', session)
    assert {"-W", "-n"} <= set(options)
    command = [sys.executable, "-m", "sphinx", *options, "docs", "site"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "site"


@pytest.mark.long
def test_every_module_has_its_page(site):
    package = ROOT / "coded_jax"
    files = {path.relative_to(ROOT).with_suffix("") for path in package.rglob("*.py")}
    names = {".".join(path.parts).removesuffix(".__init__") for path in files}
    pages = {path.stem for path in (site / "reference/generated").glob("*.html")}
    assert pages == names - {"coded_jax", "coded_jax.__main__"}


@pytest.mark.long
def test_the_reference_has_what_docstrings_say(site):
    face = (site / "reference/coded_jax.html").read_text()
    for name in ("protect", "Code", "CodedModel.classify", "TrainConfig"):
        assert f'id="coded_jax.{name}"' in face
    assert "the features of one piece" in face and "Alias for field" not in face
    networks = (
        site / "reference/generated/coded_jax.codes.networks.conv.html"
    ).read_text()
    assert "DilatedStack" in networks and "parent" not in networks


@pytest.mark.long
def test_notebooks_have_their_outputs(site):
    for path in (ROOT / "colab").glob("*.ipynb"):
        page = (site / f"notebooks/{path.stem}.html").read_text()
        assert "cell_output" in page and "Traceback" not in page


@pytest.mark.long
def test_the_site_needs_no_other_host(site):
    """Neither scripts nor styles nor pictures, badges of Colab apart."""
    for path in site.rglob("*.html"):
        loaded = re.findall(
            r'<(?:script|img|link)[^>]+(?:src|href)="(https?://[^"]+)', path.read_text()
        )
        assert all("colab-badge" in address for address in loaded), path
