"""Programs are compiled as users compile them, and not as the other tests do."""

import jax
import pytest


@pytest.fixture(scope="session", autouse=True)
def cpu_alone():
    """Described devices are added to those that JAX has found: the CPU's."""
    if jax.config.jax_platforms != "cpu":
        pytest.skip("needs JAX_PLATFORMS=cpu, as nox -s aot sets it")


@pytest.fixture(scope="module", autouse=True)
def usual_precision():
    with jax.default_matmul_precision("default"):
        yield
