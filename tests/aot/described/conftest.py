"""Programs are compiled as users compile them, and not as the other tests do."""

import jax
import pytest


@pytest.fixture(scope="session", autouse=True)
def cpu_alone():
    """Described devices are added to those that JAX has found: the CPU's."""
    if jax.config.jax_platforms != "cpu":
        pytest.skip("needs JAX_PLATFORMS=cpu, as nox -s aot sets it")


@pytest.fixture(scope="module", autouse=True)
def usual_settings():
    """No compilation is kept: JAX 0.7 cannot write those for described devices."""
    jax.config.update("jax_enable_compilation_cache", False)
    with jax.default_matmul_precision("default"):
        yield
    jax.config.update("jax_enable_compilation_cache", True)
