"""What is published: an sdist and a wheel that need no repository beside them."""

import fnmatch
import os
import pathlib
import subprocess
import sys
import tarfile
import tomllib
import zipfile

import pytest

ROOT = pathlib.Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LARGEST = {".whl": 800_000, ".gz": 4_000_000}  # bytes, stored results included


def python(*arguments, folder=ROOT, **environment):
    """Runs Python in a folder; returns what it prints."""
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder of the sdist, and of the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("dist")
    python("-m", "build", "--no-isolation", "--outdir", folder)
    return folder


def only(folder, ending):
    (path,) = folder.glob(f"*{ending}")
    assert path.stat().st_size < LARGEST[path.suffix]
    return path


@pytest.fixture(scope="module")
def unpacked(built, tmp_path_factory):
    """The folder of the wheel's files."""
    folder = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(only(built, ".whl")) as wheel:
        wheel.extractall(folder)
    return folder


@pytest.mark.long
def test_the_wheel_has_all_of_the_package_and_the_flagfiles(unpacked):
    kinds = ("*.py", "*.cc", "*.h", "py.typed", "web/openapi.json", "web/static/*")
    wanted = {
        path.relative_to(ROOT).as_posix()
        for kind in kinds
        for path in (ROOT / "coded_jax").rglob(kind)
    }
    wanted |= {
        f"coded_jax/flags/{path.relative_to(ROOT / 'experiments/flags').as_posix()}"
        for path in (ROOT / "experiments/flags").rglob("*.flags")
    }
    files = {
        path.relative_to(unpacked).as_posix()
        for path in unpacked.rglob("*")
        if path.is_file() and not path.parts[-2].endswith(".dist-info")
    }
    assert {name for name in files if "dist-info/" not in name} == wanted


@pytest.mark.long
def test_the_sdist_is_what_git_has_or_would_add(built):
    with tarfile.open(only(built, ".tar.gz")) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    if not (ROOT / ".git").exists():
        pytest.skip("no clone: what is tracked is not known")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    tracked = {name for name in done.stdout.split("\0") if (ROOT / name).is_file()}
    # Megabytes, of use in a clone alone.
    weights = "experiments/bases/*/variables.npz"
    tracked = {name for name in tracked if not fnmatch.fnmatch(name, weights)}
    assert names == {*tracked, "PKG-INFO"}


@pytest.mark.long
def test_the_wheel_runs_without_the_repository(unpacked, tmp_path):
    def coded_jax(*words):
        return python("-m", "coded_jax", *words, folder=tmp_path, PYTHONPATH=unpacked)

    assert "python -m coded_jax quickstart" in coded_jax()
    assert "table5_k2_r1.flags " in coded_jax("flags")
    few = ["--base_epochs=0.05", "--epochs=0.05", "--baselines="]
    assert "learned" in coded_jax("quickstart", *few)
    coded_jax("run", "--flagfile=table5_k2_r1_conv.flags", "--only_check_args")
    where = "import coded_jax; print(coded_jax.__file__)"
    file = python("-c", where, folder=tmp_path, PYTHONPATH=unpacked).strip()
    assert pathlib.Path(file).is_relative_to(unpacked)
    assert PROJECT["scripts"] == {"coded_jax": "coded_jax.cli.main:main"}
