"""Threads, memory and the cache of compilations are set up before the first device."""

import gc
import os
import platform
import subprocess
import sys
import weakref

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


def test_short_compilations_are_kept_in_a_folder_of_the_users(
    cache, tmp_path, monkeypatch
):
    name = "jax_persistent_cache_min_compile_time_secs"
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    jax.config.update(name, 1.0)
    monkeypatch.setenv(name.upper(), "1")
    startup.keep_compilations(None)
    assert getattr(jax.config, name) == 1.0
    monkeypatch.delenv(name.upper())
    startup.keep_compilations(None)
    assert getattr(jax.config, name) < 0.1
    assert cache() == str(tmp_path)


ONE_BY_ONE = """
import sys
import weakref
import jax, jax.numpy as jnp
from coded_jax.devices import startup
if sys.argv[1] == "one by one":
    startup.run_one_by_one()
chain = jax.jit(lambda x: jax.lax.fori_loop(0, 20, lambda _, y: jnp.tanh(y @ x), x))
x = jnp.ones((1000, 1000))
chain(x).block_until_ready()
print(all(chain(x).is_ready() for _ in range(3)))
"""


@pytest.mark.long
def test_programs_run_one_by_one():
    run = lambda way: subprocess.run(
        [sys.executable, "-c", ONE_BY_ONE, way],
        capture_output=True,
        check=True,
        text=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    ).stdout.strip()
    assert run("as usual") == "False"
    assert run("one by one") == "True"


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


class Node:
    """An object that knows itself: garbage that only a collection finds."""

    def __init__(self):
        self.me = self


def test_garbage_of_what_was_left_out_is_collected_the_next_time():
    node = Node()
    alive = weakref.ref(node)
    try:
        startup.shorten_collections()
        assert gc.get_freeze_count() > 10_000
        del node
        gc.collect()
        assert alive() is not None
        startup.shorten_collections()
        assert alive() is None
    finally:
        gc.unfreeze()


def test_import_touches_no_device():
    code = (
        "import coded_jax, coded_jax.serving, sys; from jax._src import xla_bridge; "
        "assert not xla_bridge._backends and 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_no_devices():
    with pytest.raises(ValueError, match="^devices: 0 given, 1 or more accepted"):
        startup.offer_cpu_devices(0)
