"""The flags that describe an experiment: one for each setting of `Config`."""

from __future__ import annotations

from typing import Any

from absl import flags

from coded_jax.runs.config import Config
from coded_jax.settings import BOOL, Setting, settings

SETTINGS = {declared.name: declared for declared in settings(Config)}


class SettingParser(flags.ArgumentParser):
    """Parses a flag's text as its setting declares."""

    def __init__(self, declared: Setting) -> None:
        super().__init__()
        self._declared = declared
        self.syntactic_help = declared.accepted_text

    def parse(self, argument: Any) -> Any:
        """Returns the value that the text stands for.

        Raises:
          IllegalFlagValueError: the text has another form.
        """
        try:
            return self._declared.parse(argument)
        except ValueError as error:
            raise flags.IllegalFlagValueError(str(error)) from None


class SettingSerializer(flags.ArgumentSerializer):
    """Writes a value as its setting declares."""

    def __init__(self, declared: Setting) -> None:
        self._declared = declared

    def serialize(self, value: Any) -> str:
        """Returns the flag's text."""
        return self._declared.form.show(value)


def define(declared: Setting, flag_values: flags.FlagValues = flags.FLAGS) -> None:
    """Defines the flag of a setting."""
    name, help = declared.name, declared.help
    if declared.form is BOOL:  # absl gives it a --no form
        flags.DEFINE_bool(name, declared.default, help, flag_values)
        return
    flags.DEFINE(
        SettingParser(declared),
        name,
        declared.shown_default,
        help,
        flag_values,
        SettingSerializer(declared),
    )


for declared in SETTINGS.values():
    define(declared)


def config_from_flags() -> Config:
    """Returns the settings that the flags have.

    Raises:
      ValueError: a value is out of range.
    """
    values: dict[str, Any] = {name: flags.FLAGS[name].value for name in SETTINGS}
    return Config(**values)
