"""What all tests share."""

import gc
import os
import pathlib
import shutil
import sys

# Compilation takes most of the tests' time, also in the processes that they start; what
# is left out here are LLVM's dear passes, which change rounding alone. The smoke tests
# of `noxfile.py` are run as users run JAX.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

import jax  # noqa: E402

if jax.__version_info__ < (0, 11):  # later, unknown flags end the process
    # Fused loops are generated straight as LLVM code: a third of the time to compile.
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_use_fusion_emitters=false")

import hypothesis  # noqa: E402
import pytest  # noqa: E402
from filelock import FileLock  # noqa: E402

from coded_jax.cpu_kernels import lowering  # noqa: E402
from coded_jax.devices import startup  # noqa: E402
from coded_jax.models import make_base_model  # noqa: E402
from coded_jax.runs import provenance  # noqa: E402

FAST = "not long and not aot"  # the expression of marks in `pyproject.toml`
for name, examples in {"fast": 15, "long": 50}.items():
    hypothesis.settings.register_profile(
        name, max_examples=examples, deadline=None, derandomize=True, database=None
    )

# The kernels that commands have; XLA's own take longer.
lowering.install()
# A CPU stands for the devices that tests of placement need.
startup.offer_cpu_devices(8)
# An implicit broadcast is more often a mistake than a wish.
jax.config.update("jax_numpy_rank_promotion", "raise")
# Truths hold to float32 rounding; accelerators multiply more coarsely by default.
jax.config.update("jax_default_matmul_precision", "highest")


def pytest_configure(config):
    """Chooses how many examples properties have, and runs whatever test is named."""
    fast = config.option.markexpr == FAST
    hypothesis.settings.load_profile("fast" if fast else "long")
    if fast and any("::" in argument for argument in config.args):
        config.option.markexpr = ""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Makes property tests long ones too, where those are run: with more examples."""
    if config.option.markexpr != FAST:
        for item in items:
            if hypothesis.is_hypothesis_test(getattr(item, "obj", None)):
                item.add_marker("long")


def pytest_collection_finish(session):
    """Spares the garbage collector what has been imported, which stays anyway."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def pytest_terminal_summary(terminalreporter, config):
    if config.option.markexpr == FAST:
        terminalreporter.write_line("Not run: long tests (nox -s nightly)")


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    """A folder of all processes of the tests, until they end."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session", autouse=True)
def kept_compilations(shared):
    """On the disk, for all processes of the tests and those that tests start."""
    folder = str(shared / "jit")
    startup.keep_compilations(folder)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = folder
    # Also the many small ones, which each file of tests and each process needs anew.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"


@pytest.fixture(scope="session", autouse=True)
def measurements_are_kept():
    """Also while the code under test has uncommitted changes."""
    of_tree = provenance.code_version
    named = lambda root=None: "tested code" if root is None else of_tree(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(provenance, "code_version", named)
        yield


MAPS = pathlib.Path("/proc/self/maps")


@pytest.fixture(scope="module", autouse=True)
def compiled_programs():
    """Freed before they exceed the 65,530 memory maps of a process of Linux."""
    yield
    if not MAPS.exists() or MAPS.read_text().count("\n") > 8_000:
        jax.clear_caches()
        gc.collect()


@pytest.fixture(scope="module", autouse=True)
def ray_keeps_to_loopback():
    """A file that imports Ray alone would break a later file in the same process."""
    yield
    if "ray" in sys.modules:
        assert os.environ.get("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER") == "0"
        assert os.environ.get("RAY_AUTH_MODE") == "token"


@pytest.fixture(scope="session")
def finished(shared, tmp_path_factory):
    """The workdir of a finished small run, one's own copy of the first one's."""
    from tests.runs.test_experiment import small_run

    path = tmp_path_factory.mktemp("runs") / "small"
    with FileLock(shared / "finished.lock"):
        if not (shared / "finished" / "results.json").exists():
            small_run(shared / "finished")
    return shutil.copytree(shared / "finished", path)


@pytest.fixture(scope="session")
def lenet():
    """LeNet-5 for `[B, 28, 28, 1]` and 10 classes, untrained: `(base, variables)`."""
    base = make_base_model("lenet5")
    init = jax.jit(base.init, static_argnums=(1, 2))
    return base, init(jax.random.key(0), (28, 28, 1), 10)
