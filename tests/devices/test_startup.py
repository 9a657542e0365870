"""Threads, memory and the cache of compilations are set up before the first device."""

import os
import platform
import subprocess
import sys

import jax
import pytest

from coded_jax.devices import startup

SEVERAL = """
import jax, numpy as np
from coded_jax.devices import meshes, placement
mesh = meshes.make_mesh(3)
assert mesh.size == 6, mesh
total = lambda spread, x: jax.lax.psum(x @ x.T, ("data", "piece"))
step = jax.jit(placement.data_parallel(mesh, total, (0,)))
x = np.ones((6 * 64, 64), np.float32)
for _ in range(200):  # many at once: without threads enough they stand still
    y = step(x)
print(int(y[0, 0]))
"""


def test_devices_that_the_user_made_have_threads_enough():
    flags = "--xla_force_host_platform_device_count=8"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    environment.pop("NPROC", None)  # set for the tests' own process
    done = subprocess.run(
        [sys.executable, "-c", SEVERAL],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.stdout.strip() == str(6 * 64), done.stderr


@pytest.fixture
def cache():
    """JAX's cache folder; all that JAX has of it is as before afterwards."""
    name = "jax_compilation_cache_dir"
    limits = ("min_compile_time_secs", "min_entry_size_bytes")
    options = [name, *(f"jax_persistent_cache_{limit}" for limit in limits)]
    before = {option: getattr(jax.config, option) for option in options}
    jax.config.update(name, None)
    yield lambda: getattr(jax.config, name)
    for option, value in before.items():
        jax.config.update(option, value)


def test_compilations_are_kept_where_they_can_be(cache, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    startup.keep_compilations("")
    assert cache() is None
    monkeypatch.setenv("HOME", "/proc/nowhere")
    startup.keep_compilations(None)  # no home is no error
    assert cache() is None
    with pytest.raises(ValueError, match="^compilation_cache: '/proc/x' given"):
        startup.keep_compilations("/proc/x")
    monkeypatch.setenv("HOME", str(tmp_path))
    startup.keep_compilations(None)
    assert cache() == str(tmp_path / ".cache" / "coded_jax")
    startup.keep_compilations(str(tmp_path / "mine"))
    assert cache() == str(tmp_path / "mine")
    startup.keep_compilations(None)  # what was chosen stays
    assert cache() == str(tmp_path / "mine")


HANDED_BACK = """
import numpy as np
from coded_jax.devices import startup
startup.keep_memory()
size = lambda: 4096 * int(open("/proc/self/statm").read().split()[1])
before = size()
pieces = [np.ones(1 << 16, np.uint8) for _ in range(4000)]  # 262 MB
stays = pieces[::100]
del pieces
kept = size() - before
startup.hand_back_memory()
print(kept, size() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's alone")
def test_memory_is_handed_back_on_request():
    done = subprocess.run(
        [sys.executable, "-c", HANDED_BACK], capture_output=True, text=True, check=True
    )
    kept, left = map(int, done.stdout.split())
    assert kept > 200e6 and left < 50e6


def test_import_touches_no_device():
    code = (
        "import coded_jax, coded_jax.service, sys; from jax._src import xla_bridge; "
        "assert not xla_bridge._backends and 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
