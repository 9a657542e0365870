"""Chips: peaks that their vendors state."""

import re

import pytest

from coded_jax.devices.chips import CHIPS, chip_of

VENDORS = {"TPU": "docs.cloud.google.com/tpu/", "NVIDIA": "www.nvidia.com/"}


@pytest.mark.parametrize("chip", CHIPS.values(), ids=list(CHIPS))
def test_a_chip_has_peaks_and_a_page_of_its_vendor(chip):
    assert set(chip.flops) == {"float32", "bfloat16"}
    assert 0 < chip.flops["float32"] <= chip.flops["bfloat16"]
    assert 10e9 < chip.memory < 300e9  # bytes, and no other unit
    assert 1e14 < chip.flops["bfloat16"] < 1e16
    assert chip.link_bandwidth < chip.memory_bandwidth < 10e12
    assert chip.link_bandwidth > 50e9
    page = VENDORS[re.split(r"[ \d]", chip.kind)[0]]
    assert chip.source.startswith(f"https://{page}")


def test_chips_are_found_by_what_jax_calls_them():
    assert {chip_of(chip.kind).name for chip in CHIPS.values()} == set(CHIPS)
    assert all(name == chip.name for name, chip in CHIPS.items())
    assert chip_of("cpu") is None
