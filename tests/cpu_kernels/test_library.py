"""The library with oneDNN's kernels: what it is built of, and what happens without."""

import concurrent.futures
import ctypes.util
import logging
import os
import platform
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import jax
import numpy as np
import pytest
from jax import lax

from coded_jax.cpu_kernels import library, lowering
from tests.cpu_kernels.reference import by_own_kernels

PROGRAM = """
import pathlib, sys
from coded_jax.cpu_kernels import library
print(library.load(pathlib.Path(sys.argv[1]))._name)
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


def test_onednn_is_found_where_its_wheels_are_installed():
    try:
        metadata.version("onednn-cpu-gomp")
    except metadata.PackageNotFoundError:
        pytest.skip("the extra cpu is not installed")
    onednn = library.find_onednn()
    assert (onednn.headers / "dnnl.hpp").exists()
    assert (onednn.library / "libdnnl.so").exists()
    assert onednn.key == library.find_onednn().key
    lowering.install()
    assert lowering.convolutions().startswith("oneDNN 3.")


def missing_wheels(monkeypatch, system=None):
    def files(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "files", files)
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: system)


def test_onednn_of_the_system(monkeypatch):
    missing_wheels(monkeypatch, "libdnnl.so.3")
    assert library.find_onednn() == (None, None, "libdnnl.so.3")


def no_wheels(monkeypatch, tmp_path):
    missing_wheels(monkeypatch)
    return "oneDNN is not installed: pip install 'coded_jax[cpu]'"


def no_compiler(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    return "need a compiler of C++"


def broken_compiler(monkeypatch, tmp_path):
    compiler = tmp_path / "broken"
    compiler.write_text("#!/bin/sh\necho 'fatal error: no headers' >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    return "do not compile: fatal error: no headers"


def other_processor(monkeypatch, tmp_path):
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    return "on Linux and x86-64, not Linux aarch64"


@pytest.mark.skipif(sys.platform != "linux", reason="messages are those of Linux")
@pytest.mark.parametrize(
    "case", [no_wheels, no_compiler, broken_compiler, other_processor]
)
def test_without_it_xla_computes_and_one_line_says_so(fresh, tmp_path, caplog, case):
    reason = case(fresh, tmp_path)
    fresh.setattr(lowering, "_folder", lambda: tmp_path / "kernels")
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


def test_threads_load_it_once(fresh):
    """However many lower their first program at once."""
    loads = []

    def load(folder):
        loads.append(folder)
        time.sleep(0.1)
        raise library.Unavailable("test")

    fresh.setattr(library, "load", load)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: lowering._library(), range(4)))
    assert len(loads) == 1


@pytest.fixture
def built(monkeypatch, tmp_path):
    """Builds an empty library in the place of the kernels."""
    try:
        onednn, compiler = library.find_onednn(), library.find_compiler()
    except library.Unavailable as reason:
        pytest.skip(str(reason))
    source = tmp_path / "empty.cc"
    source.write_text("")
    monkeypatch.setattr(library, "SOURCES", [source])

    def build(target, compiler=compiler):
        library.build(onednn, compiler, target)
        return target

    return build


def test_all_users_may_read_what_is_kept(built, tmp_path):
    mask = os.umask(0o022)
    try:
        target = built(tmp_path / "kept" / "kernels.so")
    finally:
        os.umask(mask)
    assert target.stat().st_mode & 0o777 == 0o755
    assert list(target.parent.iterdir()) == [target]


def test_a_compiler_with_arguments(built, monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", f"env A=b {library.find_compiler()}")
    compiler = library.find_compiler()
    assert compiler.startswith("env A=b")
    assert built(tmp_path / "kernels.so", compiler).exists()


def test_a_compiler_that_is_not_there(monkeypatch):
    """`$CXX` is not passed over."""
    monkeypatch.setenv("CXX", "no-such-compiler -O1")
    with pytest.raises(library.Unavailable, match="there is no no-such-compiler -O1"):
        library.find_compiler()


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    reason = "cannot be written to, JAX_COMPILATION_CACHE_DIR names another folder"
    with pytest.raises(library.Unavailable, match=reason):
        library.load(tmp_path / "file")


def test_a_compilation_cache_in_a_cloud(monkeypatch):
    before = jax.config.jax_compilation_cache_dir
    try:
        jax.config.update("jax_compilation_cache_dir", "gs://bucket/programs")
        assert lowering._folder() == Path.home() / ".cache" / "coded_jax"
    finally:
        jax.config.update("jax_compilation_cache_dir", before)


def test_a_jax_that_hides_its_rules(monkeypatch, caplog):
    monkeypatch.delattr(lowering.mlir, "_platform_specific_lowerings")
    with caplog.at_level(logging.WARNING, "coded_jax"):
        assert not lowering._install.__wrapped__()
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.endswith("hides its lowering rules: XLA's kernels run")


def test_choice(monkeypatch):
    monkeypatch.setenv(lowering.VARIABLE, "fast")
    with pytest.raises(ValueError, match=f"^{lowering.VARIABLE}: 'fast' given, one of"):
        lowering.install()
    program = (
        "from coded_jax.cpu_kernels import lowering; lowering.install();"
        "print(lowering.convolutions())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, lowering.VARIABLE: "xla"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "XLA\n"


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
