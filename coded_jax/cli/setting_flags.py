"""Flags of the settings that a record declares: one for each, without a second text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from absl import flags

from coded_jax.settings import BOOL, Form, Setting, settings


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

    def __init__(self, form: Form) -> None:
        self._form = form

    def serialize(self, value: Any) -> str:
        """Returns the flag's text."""
        return self._form.show(value)


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
            parser, default = SettingParser(declared), declared.shown_default
            serializer = SettingSerializer(declared.form)
            flags.DEFINE(parser, name, default, help, serializer=serializer)


def read(record: type, names: Sequence[str] = ()) -> dict[str, Any]:
    """Returns the values of the flags of `define`, by the settings' names."""
    names = names or [declared.name for declared in settings(record)]
    return {name: flags.FLAGS[name].value for name in names}
