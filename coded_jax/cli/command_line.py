"""The start of every command: its flags, and its errors as one line."""

from __future__ import annotations

import _thread
import functools
import platform
import re
import shlex
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
from absl import app, flags, logging

from coded_jax.checks import require
from coded_jax.cli import flagfiles
from coded_jax.cpu_kernels import lowering
from coded_jax.runs import provenance, workdir
from coded_jax.training.loop import Interrupted

ERRORS = (ValueError, OSError, ImportError, RuntimeError)

Main = Callable[[list[str]], None]

TEXTS = {
    r"flag --(\w+)=None: Flag --\1 must have a value .*": r"\1: not given, --\1=... ",
    r"flag --(\w+)=(.*): \S+ is not (.*)": r"\1: \2 given, \3 ",
}
"""Maps errors of absl to their beginnings in the words of the other errors."""


def command(
    arguments: bool = False,
    errors: tuple[type[Exception], ...] = ERRORS,
    resumes: bool = False,
) -> Callable[[Main], Main]:
    """Decorates the `main` of a script, which exits with one line where it fails, and
    has the kernels of `cpu_kernels` for its process.

    Args:
      arguments: whether it accepts anything beside flags.
      errors: that are told in one line; others are defects, with a traceback.
      resumes: whether the same command goes on after Ctrl-C.
    """

    def decorate(main: Main) -> Main:
        @functools.wraps(main)
        def guarded(argv: list[str]) -> None:
            if argv[1:] and not arguments:
                sys.exit(f"error: arguments: {argv[1:]} given, only --flags accepted")
            if not flags.FLAGS["verbosity"].present:
                logging.set_verbosity(logging.WARNING)  # none on absent accelerators
            try:
                lowering.install()
            except ValueError as error:  # of the user's environment
                sys.exit(f"error: {error}")
            try:
                main(argv)
            except (Interrupted, KeyboardInterrupt) as stop:
                message = str(stop) or "stopped"
                message += "; the same command goes on from there" if resumes else ""
                print(message, file=sys.stderr)
                sys.exit(130)
            except errors as error:
                sys.exit(f"error: {error}")

        return guarded

    return decorate


def heed_ctrl_c(unraisable: Any) -> None:
    """Raises Ctrl-C again where Python could not, as in JAX's callback of the garbage
    collection; anything else is told as by default. A `sys.unraisablehook`."""
    if unraisable.exc_type is KeyboardInterrupt:
        # Later, since an exception in here would be lost as well.
        threading.Timer(0.01, _thread.interrupt_main).start()
    else:
        sys.__unraisablehook__(unraisable)


def run(main: Main, argv: list[str] | None = None) -> None:
    """Parses the flags, and runs a command.

    Args:
      main: what `command` returned.
      argv: the words of the command line, its name first; those of the process if None.
    """
    sys.unraisablehook = heed_ctrl_c
    parse = functools.partial(parse_flags, about=sys.modules[main.__module__].__doc__)
    app.run(main, argv, flags_parser=parse)


def parse_flags(argv: Sequence[str], about: str | None = "") -> list[str]:
    """Parses flags as absl does, but tells an error in one line.

    Flagfiles may be those that are included, and `--help` shows all flags of the
    command, not those of one module alone, nor those of absl.

    Args:
      argv: the words of the command line, the command's name first.
      about: what the command does.

    Returns:
      The words that are no flags.
    """
    if "--help" in argv[1:]:
        modules = flags.FLAGS.flags_by_module_dict()
        own = [m for m in modules if m.startswith("coded_jax.") or m == sys.argv[0]]
        print("\n".join([about or "", *map(flags.FLAGS.module_help, own)]))
        sys.exit(0)
    try:
        return flags.FLAGS([argv[0], *flagfiles.expand(argv[1:])])
    except (flags.Error, ValueError) as error:
        lines = str(error).splitlines()
        for pattern, text in TEXTS.items():
            lines = [re.sub(f"^{pattern}$", f"{text}accepted", line) for line in lines]
        sys.exit(f"error: {'; '.join(lines)}")


def command_text(argv: Sequence[str] | None = None) -> str:
    """Returns the command line as it was typed, to be recorded with the results.

    Args:
      argv: as of `sys.argv`, which it is if None.
    """
    path, *words = sys.argv if argv is None else argv
    file = Path(path)
    if file.name == "__main__.py":
        return shlex.join(["python", "-m", file.parent.name, *words])
    if file.suffix != ".py":  # a console script, or one of Windows
        return shlex.join([file.stem, *words])
    return shlex.join(["python", path, *words])


def origin() -> dict[str, Any]:
    """Returns the origin of a stored measurement: `command`, `versions` and
    `provenance`, which names all devices."""
    text = command_text()
    return {
        "command": text,
        "versions": {"python": platform.python_version(), **workdir.versions()},
        "provenance": provenance.collect(text, {}, jax.devices()),
    }


def integers(name: str, texts: list[str]) -> tuple[int, ...]:
    """Returns the numbers in a flag's value.

    Raises:
      ValueError: they are not integers.
    """
    try:
        return tuple(map(int, texts))
    except ValueError:
        raise ValueError(f"{name}: {texts} given, integers accepted") from None


def mesh_of(text: str | None, name: str = "mesh") -> tuple[int, int] | None:
    """Returns the devices along piece and data of a flag, as 3x2; None of None.

    Raises:
      ValueError: they are not two integers.
    """
    if text is None:
        return None
    sizes = text.split("x")
    fits = len(sizes) == 2 and all(size.isdecimal() for size in sizes)
    require(name, text, fits, "piece x data as 3x2")
    return int(sizes[0]), int(sizes[1])


def image_shape_of(text: str) -> tuple[int, int, int]:
    """Returns `(H, W, C)` of a flag, as 28x28x1.

    Raises:
      ValueError: they are not three integers of 1 or more.
    """
    sizes = text.split("x")
    fits = len(sizes) == 3 and all(size.isdecimal() and int(size) for size in sizes)
    require("image_shape", text, fits, "HxWxC")
    height, width, channels = map(int, sizes)
    return height, width, channels
