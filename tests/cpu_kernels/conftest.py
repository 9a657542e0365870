"""What the tests of kernels share."""

import pytest

from coded_jax.cpu_kernels import lowering


@pytest.fixture
def onednn():
    """Installs the kernels; skips the test where oneDNN or a compiler is missing."""
    lowering.install()
    if lowering.convolutions() == "XLA":
        pytest.skip("there is no oneDNN, or no compiler for it")
