"""Chips: peaks that their vendors state."""

from coded_jax.aot.chips import CHIPS, chip_of


def test_chips_are_found_by_what_jax_calls_them():
    assert {chip_of(chip.kind).name for chip in CHIPS.values()} == set(CHIPS)
    assert all(name == chip.name for name, chip in CHIPS.items())
    assert chip_of("cpu") is None
