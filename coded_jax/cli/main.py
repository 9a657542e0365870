"""The choice of a command by the first word behind `python -m coded_jax`."""

from __future__ import annotations

import importlib
import sys
from importlib import metadata

QUICKSTART = "quickstart"
COMMANDS = {
    QUICKSTART: "trains a small code on 5,000 images that a package ships: start here",
    "run": "trains a CNN and a code, and tries every loss of devices",
    "sweep": "runs experiments that differ in a few flags: ablations",
    "plan": "shows how images are split; trains nothing",
    "compile": "shows what an experiment would be on a TPU or GPU that is not here",
    "serve": "answers over HTTP, with a worker for every piece",
    "export": "writes a finished run as one file that needs JAX only",
    "flags": "lists the flagfiles that are included, or shows one",
}
"""What each command does; they are modules of `commands`, but for the first one, which
is `run` with a flagfile."""
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
        lines = [f"  {name:{width}}  {about}" for name, about in COMMANDS.items()]
        version = metadata.version("coded_jax")
        print(OVERVIEW.format(version=version, commands="\n".join(lines)), end="")
    elif name == "--version":
        print(f"coded_jax {metadata.version('coded_jax')}")
    elif name in COMMANDS:
        quick = name == QUICKSTART
        try:
            # Only now: two commands may have flags of one name, and JAX takes its time.
            from coded_jax.cli import command_line

            module = f"coded_jax.cli.commands.{'run' if quick else name}"
            command = importlib.import_module(module).main
        except KeyboardInterrupt:
            print("stopped", file=sys.stderr)
            sys.exit(130)
        first = ["--flagfile=quickstart.flags"] if quick else []  # later flags win
        command_line.run(command, [name, *first, *words])
    else:
        accepted = f"one of {', '.join(COMMANDS)} accepted"
        sys.exit(f"error: command: {name!r} given, {accepted}")
