"""Flags of the front: one for each setting of `WebConfig`."""

from __future__ import annotations

from typing import Any

from absl import flags

from coded_jax.cli.experiment_flags import define
from coded_jax.service.web.config import WebConfig
from coded_jax.settings import settings

SETTINGS = {declared.name: declared for declared in settings(WebConfig)}

for declared in SETTINGS.values():
    define(declared)


def web_config_from_flags() -> WebConfig:
    """Returns the settings that the flags have.

    Raises:
      ValueError: a value is out of range.
    """
    values: dict[str, Any] = {name: flags.FLAGS[name].value for name in SETTINGS}
    return WebConfig(**values)
