r"""Reports of finished runs and sweeps, in Markdown and HTML with tables and figures.

    python experiments/report.py runs/quickstart          # a run's workdir
    python experiments/report.py runs/ablation_dilation   # a sweep's folder

A report is written into the folder that it is about, or into `--output`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from absl import flags
from rich.console import Console
from tables import reports

from coded_jax.cli.command_line import command, run
from coded_jax.report import run_tables
from coded_jax.runs.sweep_table import SWEEP

OUTPUT = flags.DEFINE_string(
    "output", None, "folder of the report; of several, each has a folder there"
)
DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "folder of prepared TFDS data; TFDS_DATA_DIR if not given"
)


def folder_of(path: Path, alone: bool) -> Path:
    """Returns the folder into which the report of a run or sweep is written.

    Raises:
      ValueError: it is a file, and no folder is given.
    """
    if OUTPUT.value is None:
        if path.is_file():
            raise ValueError("output: not given, a folder for the report of a file")
        return path
    name = path.parent.name if path.name == "results.json" else path.stem
    return Path(OUTPUT.value) if alone else Path(OUTPUT.value) / name


def report(path: Path, folder: Path) -> Any:
    """Writes one report, and returns its tables for a terminal."""
    if (path / SWEEP).exists():
        return reports.report_sweep(path, folder)
    return run_tables.tables(reports.report_run(path, folder, DATA_DIR.value))


@command(arguments=True)
def main(argv: list[str]) -> None:
    paths = [Path(argument) for argument in argv[1:]]
    console = Console()
    if not paths:
        raise ValueError("runs: none given, workdirs of runs or sweeps accepted")
    folders = [folder_of(path, len(paths) == 1) for path in paths]
    if len(set(folders)) < len(folders):
        raise ValueError(f"runs: {argv[1:]} given, of other names each accepted")
    for path, folder in zip(paths, folders, strict=True):
        console.print(report(path, folder), highlight=False)
        console.print(f"the report: {folder / 'report.html'}", highlight=False)


if __name__ == "__main__":
    run(main)
