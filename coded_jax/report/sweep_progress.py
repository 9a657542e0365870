"""A sweep while it runs: a line for every cell, and the tables of all so far."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from rich.console import Console

from coded_jax.report.formatting import measure_text
from coded_jax.runs import sweeps
from coded_jax.runs.progress import LiveTable, duration_text
from coded_jax.runs.sweeps import Cell, CellResult, Sweep

RunCells = Callable[[list[Cell], Sweep, LiveTable], Iterator[CellResult]]


def run(
    sweep: Sweep, finished: Sequence[CellResult], run_cells: RunCells, console: Console
) -> list[CellResult]:
    """Runs the cells that are not finished, and writes the tables after each.

    Args:
      sweep: the cells.
      finished: cells of a former sweep.
      run_cells: runs cells, and yields the end of each.
      console: where a line for each cell is printed.

    Returns:
      The ends of all cells, in their order.

    Raises:
      loop.Interrupted: a signal asked to stop.
    """
    cells = sweep.cells
    ended = {result.cell.name: result for result in finished}

    def write() -> None:
        sweeps.write(sweep, [ended[cell.name] for cell in cells if cell.name in ended])

    waiting = [cell for cell in cells if cell.name not in ended]
    if ended:
        console.print(f"{len(ended)} of {len(cells)} cells are finished already")
    if others := sweeps.others(sweep):
        console.print(
            f"{len(others)} more cells of this folder are not of this grid, and so not "
            f"in its table: {', '.join(others)}",
            highlight=False,
        )
    if waiting and not console.is_terminal:
        console.print("each cell has a line when it is done", highlight=False)
    with LiveTable(console, prints=False) as progress:
        row = progress.begin("cells", len(waiting))
        for result in run_cells(waiting, sweep, progress):
            ended[result.cell.name] = result
            progress.advance(row)
            text = f"{len(ended)}/{len(cells)} {result_text(result)}"
            if progress.disable and (left := progress.tasks[0].time_remaining):
                text += f", about {duration_text(left)} left"
            console.print(text, highlight=False, soft_wrap=True)
            write()
    write()
    return [ended[cell.name] for cell in cells]


def result_text(result: CellResult) -> str:
    """Returns the end of one cell as a line."""
    if result.results is None:
        return f"{result.cell.name}: {result.error}"
    by_lost = result.results["summary"].items()
    means = ", ".join(f"{l} lost {measure_text(row, 'mean')}" for l, row in by_lost)
    seconds = sweeps.seconds(result.results)
    return (
        f"{result.cell.name}: {means} after {seconds:.0f} s of training and evaluation"
    )
