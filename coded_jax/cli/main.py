"""The choice of a command by the first word behind `python -m coded_jax`."""

from __future__ import annotations

import importlib
import sys
from importlib import metadata
from typing import NamedTuple


class Command(NamedTuple):
    """A command of the package.

    Attributes:
      module: of `coded_jax.cli.commands`, that has its `main`.
      about: what it does, in one line.
      flags: that stand before those of the command line, which win.
    """

    module: str
    about: str
    flags: tuple[str, ...] = ()


COMMANDS = {
    "quickstart": Command(
        "run",
        "trains a small code on 5,000 images that a package ships: start here",
        ("--flagfile=quickstart.flags",),
    ),
    "run": Command("run", "trains a CNN and a code, and tries every loss of devices"),
    "sweep": Command("sweep", "runs experiments that differ in a few flags: ablations"),
    "plan": Command("plan", "shows how images are split; trains nothing"),
    "compile": Command(
        "compile", "shows what an experiment would be on a TPU or GPU that is not here"
    ),
    "serve": Command("serve", "answers over HTTP, with a worker for every piece"),
    "export": Command(
        "export", "writes a finished run as one file that needs JAX only"
    ),
    "flags": Command("flags", "lists the flagfiles that are included, or shows one"),
}
OVERVIEW = """\
coded_jax {version}: CNN inference that survives lost devices, by learned erasure codes

{commands}

Try first:  python -m coded_jax quickstart
And then:   python -m coded_jax COMMAND --help
"""


def main() -> None:
    """Runs the command that the command line names, or lists all of them."""
    name, *words = sys.argv[1:] or ["help"]
    if name in ("--help", "-h", "help"):
        width = max(map(len, COMMANDS))
        lines = [f"  {name:{width}}  {x.about}" for name, x in COMMANDS.items()]
        version = metadata.version("coded_jax")
        print(OVERVIEW.format(version=version, commands="\n".join(lines)), end="")
    elif name == "--version":
        print(f"coded_jax {metadata.version('coded_jax')}")
    elif name in COMMANDS:
        command = COMMANDS[name]
        try:
            # Only now: two commands may have flags of one name, and JAX takes its time.
            from coded_jax.cli import command_line

            module = importlib.import_module(f"coded_jax.cli.commands.{command.module}")
        except KeyboardInterrupt:
            print("stopped", file=sys.stderr)
            sys.exit(130)
        command_line.run(module.main, [name, *command.flags, *words])
    else:
        accepted = f"one of {', '.join(COMMANDS)} accepted"
        sys.exit(f"error: command: {name!r} given, {accepted}")
