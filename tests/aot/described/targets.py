"""The machines that programs are compiled for, none of which is here."""

import functools

import jax
import pytest

from coded_jax.aot import topologies
from coded_jax.aot.chips import CHIPS, Chip, chip_of

TPUS = {
    "v5e:1x1": 1,
    "v5e:2x2": 4,
    "v5e:2x4": 8,
    "v5e:4x4": 16,
    "v6e:2x4": 8,
    "v4:2x2x2": 8,
    "v5p:2x2x1": 4,
    "tpu7x:2x2x1": 8,
}
GPUS = {f"h100:{count}": count for count in (1, 3, 6, 8)}
TARGETS = TPUS | GPUS
"""Devices, by the text that `topologies.describe` takes."""


@functools.cache
def devices_of(target: str) -> list[jax.Device]:
    """Returns the described devices; skips the test where there is no such compiler."""
    try:
        return topologies.describe(target)
    except ImportError as error:
        pytest.skip(f"needs {str(error).partition(' needs ')[2]}")


def chip_of_target(target: str) -> Chip:
    """Returns the chip of a target, by what its devices call themselves."""
    chip = chip_of(devices_of(target)[0].device_kind)
    assert chip is CHIPS[target.partition(":")[0]]
    return chip
