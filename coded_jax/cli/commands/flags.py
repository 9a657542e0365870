"""Lists the flagfiles that are included, or shows those that are named.

    python -m coded_jax flags                     # all, with a line about each
    python -m coded_jax flags quickstart.flags    # what one says

A flagfile has a flag a line, as on the command line. Save one that is shown under a
name of your own, change it, and use it: `python -m coded_jax run --flagfile=my.flags`.
"""

from __future__ import annotations

from coded_jax.cli import flagfiles
from coded_jax.cli.command_line import command


@command(arguments=True)
def main(argv: list[str]) -> None:
    """Prints the flagfiles."""
    names = argv[1:]
    for name in names:
        print(flagfiles.find(name).read_text(), end="")
    if not names:
        print(listing())


def listing() -> str:
    """Returns the included flagfiles, a line each with the first sentence of it."""
    files = flagfiles.included()
    width = max(map(len, files), default=0)
    lines = [
        f"{name:{width}}  {flagfiles.about(file).partition('. ')[0].rstrip('.')}"
        for name, file in files.items()
    ]
    return "\n".join(lines)
