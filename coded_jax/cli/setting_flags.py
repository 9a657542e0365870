"""Flags of the settings that a record declares: one for each, without a second text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from absl import flags

from coded_jax.settings import BOOL, Setting, settings


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


def define(record: type, names: Sequence[str] = ()) -> None:
    """Defines the flags of a record's settings.

    Args:
      record: that declares them.
      names: of these alone; of all settings if empty.
    """
    for declared in settings(record):
        name, help = declared.name, declared.help
        if names and name not in names:
            continue
        if declared.form is BOOL:  # absl gives it a --no form
            flags.DEFINE_bool(name, declared.default, help)
        else:
            serializer = flags.ArgumentSerializer()
            serializer.serialize = declared.form.show  # how `--help` shows the default
            flags.DEFINE(
                *(SettingParser(declared), name, declared.shown_default, help),
                serializer=serializer,
            )


def read(record: type, names: Sequence[str] = ()) -> dict[str, Any]:
    """Returns the values of the flags of `define`, by the settings' names."""
    names = names or [declared.name for declared in settings(record)]
    return {name: flags.FLAGS[name].value for name in names}
