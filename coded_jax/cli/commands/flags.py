"""Lists the flagfiles that are included, or shows those that are named.

    python -m coded_jax flags                     # all, with a line about each
    python -m coded_jax flags quickstart.flags    # what one says

A flagfile has a flag a line, as on the command line. Save one that is shown under a
name of your own, change it, and use it: `python -m coded_jax run --flagfile=my.flags`.
"""

from __future__ import annotations

import itertools

from coded_jax.cli.command_line import command, find, flagfiles

USE = """
Show one:  python -m coded_jax flags NAME
Run one:   python -m coded_jax run --flagfile=NAME (of ablations: sweep, not run)"""


@command(arguments=True)
def main(argv: list[str]) -> None:
    """Prints the flagfiles that are named, or all with the first sentence of each."""
    for name in argv[1:]:
        print(find(name).read_text(), end="")
    if argv[1:]:
        return
    files = flagfiles()
    width = max(map(len, files))
    for name, file in files.items():
        lines = file.read_text().splitlines()
        comment = itertools.takewhile(lambda line: line.startswith("#"), lines)
        about = " ".join(line.removeprefix("#").strip() for line in comment)
        first = about.partition(". ")[0].rstrip(".")
        print(f"{name:{width}}  {first}")
    print(USE)
