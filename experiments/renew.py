r"""Renews every generated section of README.md and docs, and lists stale results.

    python experiments/renew.py          # all tables, from the stored results
    python experiments/renew.py --stale  # results that other code than this has made

The sections are made from `experiments/results`, the code and the settings, and so are
the comments of flagfiles about what to expect. A stored result is stale when the code
of a module that made it has changed since; comments and docstrings do not count. The
list says how long each takes to make again, and how.
"""

from __future__ import annotations

from absl import flags
from rich.console import Console
from tables import document_sections, expectations, markdown, stored

from coded_jax.cli.command_line import command, run

STALE = flags.DEFINE_bool(
    "stale", False, "list the results that the present code did not make, renew nothing"
)
SHOWN = 5  # changed modules; all are counted


@command()
def main(argv: list[str]) -> None:
    console = Console(soft_wrap=True)
    if STALE.value:
        show_stale(console)
        return
    root = stored.EXPERIMENTS.parent
    for path in document_sections.documents(root):
        names = markdown.renew(path, document_sections.section)
        console.print(f"{path.relative_to(root)}: {', '.join(names)}", highlight=False)
    runs = expectations.stored_runs()
    paths = sorted(expectations.FLAGS.glob("*.flags"))
    told = sum(expectations.renew(path, runs) for path in paths)
    console.print(f"experiments/flags: expected results of {told}", highlight=False)


def show_stale(console: Console) -> None:
    """Prints the stale results, those that documents show as present first."""
    results = list(stored.all_stored())
    stale = [result for result in results if result.is_stale]
    for heading, is_history in (("shown as present", False), ("history", True)):
        rows = [result for result in stale if result.is_history == is_history]
        console.print(f"{heading}: {len(rows)} stale{_total(rows)}", highlight=False)
        for row in rows:
            console.print(_lines(row), highlight=False, markup=False)
    console.print(
        f"{len(results) - len(stale)} of {len(results)} are of the present code",
        highlight=False,
    )


def _lines(row: stored.Stored) -> str:
    origin = row.origin
    commit = origin.commit if origin.is_code else f"stored by {origin.commit}"
    minutes = "unknown time" if row.seconds is None else f"{row.seconds / 60:.0f} min"
    return (
        f"  {row.name}: {origin.date[:10]}, {commit}; {minutes} to make again\n"
        f"    changed since: {_changed_text(row.changed)}\n"
        f"    {row.command}"
    )


def _changed_text(changed: list[str] | None) -> str:
    if changed is None:
        return "unknown, it does not say which modules made it"
    more = f" and {len(changed) - SHOWN} more" if len(changed) > SHOWN else ""
    return ", ".join(changed[:SHOWN]) + more


def _total(rows: list[stored.Stored]) -> str:
    hours = sum(row.seconds or 0 for row in rows) / 3600
    return f", {hours:.1f} hours to make again" if hours else ""


if __name__ == "__main__":
    run(main)
