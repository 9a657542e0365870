r"""Reports on a finished run or sweep, in Markdown with tables and figures.

    python experiments/report.py runs/quickstart          # a run's workdir
    python experiments/report.py runs/ablation_dilation   # a sweep's folder

A report is written into the folder that it is about, or into `--output`.
"""

from __future__ import annotations

from pathlib import Path

from absl import flags
from rich.console import Console
from tables import reports

from coded_jax.checks import require
from coded_jax.cli.command_line import command, run
from coded_jax.report import run_tables
from coded_jax.runs.sweeps import SWEEP

OUTPUT = flags.DEFINE_string("output", None, "folder of the report")
DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "folder of prepared TFDS data; TFDS_DATA_DIR if not given"
)


@command(arguments=True)
def main(argv: list[str]) -> None:
    require("runs", argv[1:], len(argv) == 2, "the workdir of a run or a sweep")
    path, console = Path(argv[1]), Console(highlight=False)
    fits = OUTPUT.value is not None or not path.is_file()
    require("output", None, fits, "a folder for the report of a file")
    folder = path if OUTPUT.value is None else Path(OUTPUT.value)
    if (path / SWEEP).exists():
        shown = reports.report_sweep(path, folder)
    else:
        results = reports.report_run(path, folder, DATA_DIR.value)
        shown = run_tables.tables(results)
    console.print(shown)
    console.print(f"the report: {folder / 'report.md'}")


if __name__ == "__main__":
    run(main)
