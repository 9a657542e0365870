"""The table of an experiment's compiled programs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Group
from rich.table import Table

from coded_jax.aot.chips import Chip
from coded_jax.aot.compiled import Figures, bound
from coded_jax.aot.programs import Compiled
from coded_jax.report.formatting import number_text, size_text

COLUMNS = ("Mflop", "MB\nmoved", "MB\nheld", "collectives,\nkB sent", "bound\nµs")
LIMITS = {"compute": "products", "memory": "HBM", "links": "links"}
"""Names what bounds a program, by the fields of `compiled.Bound`."""


def table(outcomes: Iterable[Compiled], chip: Chip | None) -> Group:
    """Returns a row for each program, figures of one device, and below them what the
    compiler refused.

    Args:
      outcomes: of `programs.compile_program`.
      chip: whose peaks bound the time; None where they are not known.
    """
    rows = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    rows.add_column("program\nmesh, fusions, compiled in")
    for column in COLUMNS:
        rows.add_column(column, justify="right", no_wrap=True)
    refused = []
    for outcome in outcomes:
        mesh, figures = size_text(outcome.mesh), outcome.figures
        fusions = f", {figures.fusions} fusions" if figures else ""
        name = f"{outcome.name}\n  {mesh}{fusions}, {outcome.seconds:.1f} s"
        if figures is None:
            rows.add_row(name, "refused")
            refused.append(f"refused: {outcome.name}, {mesh}: {outcome.refusal}")
        else:
            rows.add_row(name, *cells(outcome, figures, chip))
    return Group(rows, *refused)


def cells(outcome: Compiled, figures: Figures, chip: Chip | None) -> Sequence[str]:
    """Returns the texts of a program's figures, each of one line or two: of what it
    holds also the part of the chip's HBM, of its bound also what it is of."""
    limit, held = "-", number_text(figures.needed / 1e6)
    if chip is not None:
        least = bound(figures, chip, outcome.dtype)
        limit = f"{number_text(1e6 * least.seconds)}\n{LIMITS[least.name]}"
        part = 100 * figures.needed / chip.memory
        percent = f"{part:.2g} %" if part < 99.5 else f"{part:.0f} %"
        held += f"\n{percent}" if part <= 100 else "\ndoes not fit"
    return (
        number_text(figures.operations / 1e6),
        number_text(figures.moved / 1e6),
        held,
        collectives_text(figures),
        limit,
    )


def collectives_text(figures: Figures) -> str:
    """Returns the number of collectives of each kind, with the kilobytes sent."""
    kinds = (
        f"{x.count} {kind} {number_text(x.sent / 1e3)}"
        for kind, x in sorted(figures.collectives.items())
    )
    return "\n".join(kinds) or "none"
