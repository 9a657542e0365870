"""Threads, memory and the cache of compilations are set up before the first device."""

import os
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


def test_threads_of_the_user_are_kept(monkeypatch):
    monkeypatch.setenv("NPROC", "5")
    startup.give_threads()
    assert os.environ["NPROC"] == "5"
    monkeypatch.delenv("NPROC")
    startup.give_threads()  # conftest.py asked for 8 devices
    assert int(os.environ["NPROC"]) >= 16


@pytest.fixture
def cache(monkeypatch):
    """JAX's cache folder, as before afterwards."""
    name = "jax_compilation_cache_dir"
    before = getattr(jax.config, name)
    jax.config.update(name, None)
    yield lambda: getattr(jax.config, name)
    jax.config.update(name, before)


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


def test_memory_is_kept_without_harm():
    startup.keep_memory()
    assert jax.numpy.ones(1 << 20).sum() == 1 << 20


def test_import_touches_no_device():
    code = (
        "import coded_jax, coded_jax.serving, sys; from jax._src import xla_bridge; "
        "assert not xla_bridge._backends and 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_no_devices():
    with pytest.raises(ValueError, match="^devices: 0 given, 1 or more accepted"):
        startup.offer_cpu_devices(0)
