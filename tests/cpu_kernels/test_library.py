"""The library with oneDNN's kernels: what it is built of, and what happens without."""

import ctypes.util
import logging
import subprocess
import sys
from importlib import metadata

import numpy as np
import pytest
from jax import lax

from coded_jax.cpu_kernels import library, lowering
from tests.cpu_kernels.reference import by_own_kernels

PROGRAM = """
import pathlib, sys
from coded_jax.cpu_kernels import library
print(library.load_library(pathlib.Path(sys.argv[1]))._name)
"""


@pytest.fixture
def fresh(monkeypatch):
    """Lets the lowering look for the library again, before the test and after it."""
    lowering.install()
    caches = (lowering._load, lowering._accepted)
    for cache in caches:
        cache.cache_clear()
    yield monkeypatch
    for cache in caches:
        cache.cache_clear()


def missing_wheels(monkeypatch, system=None):
    def files(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "files", files)
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: system)


def no_wheels(monkeypatch, tmp_path):
    missing_wheels(monkeypatch)
    return "oneDNN is not installed: pip install 'coded_jax[cpu]'"


def no_compiler(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    return "needs a compiler of C++"


def broken_compiler(monkeypatch, tmp_path):
    compiler = tmp_path / "broken"
    compiler.write_text("#!/bin/sh\necho 'fatal error: no headers' >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    return "do not compile: fatal error: no headers"


@pytest.mark.skipif(sys.platform != "linux", reason="messages are those of Linux")
@pytest.mark.parametrize("case", [no_wheels, no_compiler, broken_compiler])
def test_without_it_xla_computes_and_one_line_says_so(fresh, tmp_path, caplog, case):
    reason = case(fresh, tmp_path)
    load = library.load_library
    fresh.setattr(library, "load_library", lambda folder: load(tmp_path / "kernels"))
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(2, 5, 4, 3)), rng.normal(size=(3, 3, 3, 2))
    x, kernel = x.astype("float32"), kernel.astype("float32")
    with caplog.at_level(logging.WARNING, "coded_jax"):
        for strides in ((1, 1), (2, 2)):
            y = by_own_kernels(
                lambda x, k, s=strides: lax.conv_general_dilated(
                    x, k, s, "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
                ),
                x,
                kernel,
            )
            assert np.isfinite(y).all()
    (line,) = [record.getMessage() for record in caplog.records]
    assert reason in line and line.startswith("convolutions: XLA's kernels run")
    assert lowering.convolutions() == "XLA"
    assert not list((tmp_path / "kernels").glob("*"))


@pytest.mark.long
def test_two_processes_build_at_once(tmp_path):
    if lowering.convolutions() == "XLA":
        pytest.skip("there is no oneDNN, or no compiler for it")
    folder = tmp_path / "kept"
    start = lambda: subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    both = [start(), start()]
    for process in both:
        out, error = process.communicate(timeout=300)
        assert process.returncode == 0, error
        assert out.startswith(str(folder))
    (kept,) = folder.iterdir()  # and nothing unfinished
    written = kept.stat().st_mtime_ns
    again = start()
    again.communicate(timeout=300)
    assert again.returncode == 0 and kept.stat().st_mtime_ns == written
