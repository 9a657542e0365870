"""The flags that describe an experiment: one for each setting of `Config`."""

from __future__ import annotations

from coded_jax.cli import setting_flags
from coded_jax.runs.config import Config

setting_flags.define(Config)


def config_from_flags() -> Config:
    """Returns the settings that the flags have.

    Raises:
      ValueError: a value is out of range.
    """
    return Config(**setting_flags.read(Config))
