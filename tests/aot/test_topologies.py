"""Described devices: names that are refused, and compilers that are missing.

What the compilers themselves do is tried in `tests/aot`.
"""

import importlib.util
from types import SimpleNamespace

import pytest

from coded_jax.aot import topologies


@pytest.mark.parametrize(
    "target",
    [
        "",
        "v9:2x4",
        "v5e:0x4",
        # A v5e's chips are in a plane, a v4's in a cube, GPUs in one host.
        "v5e:2x2x2",
        "v4:2x4",
        "h100:2x4",
    ],
)
def test_other_targets_are_refused_in_one_line(target):
    with pytest.raises(ValueError) as error:
        topologies.describe(target)
    assert str(error.value).startswith(f"target: {target!r} given, ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "target, missing, extra",
    [
        ("v5e:2x4", "libtpu", "aot-tpu"),
        ("h100:8", "jax_cuda", "aot-cuda"),
    ],
)
def test_a_missing_compiler_is_told_in_one_line(monkeypatch, target, missing, extra):
    there = lambda name: None if name.startswith(missing) else SimpleNamespace()
    monkeypatch.setattr(importlib.util, "find_spec", there)
    with pytest.raises(ImportError) as error:
        topologies.describe(target)
    assert str(error.value).startswith(f"target: {target!r} needs a compiler")
    assert str(error.value).endswith(f"pip install 'coded_jax[{extra}]'")
