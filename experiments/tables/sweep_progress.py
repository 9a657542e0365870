"""A sweep while it runs: a line for every cell, and the tables of all so far."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from rich.console import Console

from coded_jax.report.formatting import measure_text
from coded_jax.runs import sweep_table, sweeps, workdir
from coded_jax.runs.progress import LiveTable, add_row, live_table
from coded_jax.runs.sweeps import Cell, Outcome, Places

RunCells = Callable[[list[Cell], Places, LiveTable], Iterator[Outcome]]


class Sweep(NamedTuple):
    """The cells of a sweep, and what varies between them.

    Attributes:
      cells: all of them, in the order of the tables.
      places: where they run.
      vary: each flag that varies, with its values.
      variants: flags that go together, as text.
    """

    cells: list[Cell]
    places: Places
    vary: dict[str, list[str]]
    variants: tuple[str, ...]


def run(
    sweep: Sweep, finished: Sequence[Outcome], run_cells: RunCells, console: Console
) -> list[Outcome]:
    """Runs the cells that are not finished, and writes the tables after each.

    Args:
      sweep: the cells.
      finished: outcomes of a former sweep.
      run_cells: runs cells, and yields the outcome of each.
      console: where a line for each cell is printed.

    Returns:
      The outcomes of all cells, in their order.

    Raises:
      loop.Interrupted: a signal asked to stop.
    """
    cells, places = sweep.cells, sweep.places
    outcomes = {outcome.cell.name: outcome for outcome in finished}
    waiting = [cell for cell in cells if cell.name not in outcomes]
    if outcomes:
        console.print(f"{len(outcomes)} of {len(cells)} cells are finished already")
    if others := sweeps.others(cells, places):
        console.print(
            f"{len(others)} more cells of this folder are not of this grid, and so not "
            f"in its table: {', '.join(others)}",
            highlight=False,
        )
    if waiting and not console.is_terminal:
        console.print("each cell has a line when it is done", highlight=False)
    with live_table(console, tells=False) as progress:
        row = add_row(progress, "cells", len(waiting))
        for outcome in run_cells(waiting, places, progress):
            outcomes[outcome.cell.name] = outcome
            progress.advance(row)
            text = f"{len(outcomes)}/{len(cells)} {outcome_text(outcome)}"
            if progress.disable and (left := progress.tasks[0].time_remaining):
                text += f", about {duration_text(left)} left"
            console.print(text, highlight=False, soft_wrap=True)
            write(sweep, outcomes)
    write(sweep, outcomes)
    return [outcomes[cell.name] for cell in cells]


def duration_text(seconds: float) -> str:
    """Returns a time to wait, no finer than it can be foretold."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def outcome_text(outcome: Outcome) -> str:
    """Returns one cell's outcome as a line."""
    if outcome.results is None:
        return f"{outcome.cell.name}: {outcome.error}"
    by_lost = outcome.results["summary"].items()
    means = ", ".join(f"{l} lost {measure_text(row, 'mean')}" for l, row in by_lost)
    seconds = sweep_table.seconds(outcome.results)
    return (
        f"{outcome.cell.name}: {means} after {seconds:.0f} s of training and evaluation"
    )


def write(sweep: Sweep, outcomes: dict[str, Outcome]) -> None:
    """Writes the tables of the cells that have run, and how they were made."""
    folder = sweep.places.folder
    ordered = [outcomes[cell.name] for cell in sweep.cells if cell.name in outcomes]
    rows = [row for outcome in ordered for row in sweep_table.rows(outcome)]
    sweep_table.write(folder, rows)
    content = sweep_table.summary(
        sweep.cells, ordered, sweep.vary, sweep.variants, sweep.places.command
    )
    text = json.dumps(content, indent=1) + "\n"
    workdir.write_atomically(folder / sweep_table.SWEEP, text)
