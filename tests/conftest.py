"""What all tests share."""

import gc
import os

# Compilation takes most of the tests' time, also in the processes that they start; what
# is left out here are LLVM's dear passes, which change rounding alone.
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"

import jax  # noqa: E402
import pytest  # noqa: E402

from coded_jax import startup  # noqa: E402
from coded_jax.models import make_base_model  # noqa: E402

# A CPU stands for the devices that tests of placement need.
startup.offer_cpu_devices(8)
# An implicit broadcast is more often a mistake than a wish.
jax.config.update("jax_numpy_rank_promotion", "raise")
# Truths hold to float32 rounding; accelerators multiply more coarsely by default.
jax.config.update("jax_default_matmul_precision", "highest")


@pytest.fixture(scope="session", autouse=True)
def kept_compilations(tmp_path_factory):
    """On the disk until the tests end, for all processes of the tests and those that
    tests start."""
    base = tmp_path_factory.getbasetemp()
    folder = str((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "jit")
    startup.keep_compilations(folder)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = folder


@pytest.fixture(scope="module", autouse=True)
def compiled_programs():
    """Freed after each file: thousands of them exceed the memory maps of a process."""
    yield
    jax.clear_caches()
    gc.collect()


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """The workdir of a finished small run, in this process."""
    from test_experiment import small_run

    path = tmp_path_factory.mktemp("runs") / "small"
    small_run(path)
    return path


@pytest.fixture(scope="session")
def lenet():
    """LeNet-5 for `[B, 28, 28, 1]` and 10 classes, untrained: `(base, variables)`."""
    base = make_base_model("lenet5")
    init = jax.jit(base.init, static_argnums=(1, 2))
    return base, init(jax.random.key(0), (28, 28, 1), 10)
