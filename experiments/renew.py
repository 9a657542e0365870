r"""Renews the generated sections of README.md and docs from `experiments/results`.

    python experiments/renew.py          # all pages and the CSV files beside them
    python experiments/renew.py --check  # writes nothing; ends with 1 where one differs

The sections are made from stored results and settings, and so are the comments of
flagfiles about what to expect.
"""

from __future__ import annotations

from pathlib import Path

from absl import flags
from rich.console import Console
from tables import pages

from coded_jax.cli.command_line import command, run
from coded_jax.runs.workdir import write_atomically

CHECK = flags.DEFINE_bool("check", False, "name the files that differ, write nothing")


@command()
def main(argv: list[str]) -> None:
    console = Console(soft_wrap=True, highlight=False)
    made: dict[Path, str] = {}
    for page in pages.pages():
        made |= pages.renewed(page)
    made |= pages.flagfiles()
    differing = [x for x in made if not x.exists() or x.read_text() != made[x]]
    if not CHECK.value:
        for path in differing:
            write_atomically(path, made[path])
    for path in differing:
        console.print(path.relative_to(pages.ROOT))
    told = "differ" if CHECK.value else "written"
    console.print(f"{len(differing)} of {len(made)} files {told}")
    if CHECK.value and differing:
        raise ValueError(
            "check: files differ from their sources, renew.py writes them anew"
        )


if __name__ == "__main__":
    run(main)
