r"""Reports of finished runs and sweeps, in Markdown with tables and figures.

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

OUTPUT = flags.DEFINE_string(
    "output", None, "folder of the report; of several, each has a folder there"
)
DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "folder of prepared TFDS data; TFDS_DATA_DIR if not given"
)


@command(arguments=True)
def main(argv: list[str]) -> None:
    paths = [Path(argument) for argument in argv[1:]]
    console = Console(highlight=False)
    require("runs", argv[1:], bool(paths), "workdirs of runs or sweeps")
    folders = paths
    if OUTPUT.value is not None:
        folders = [Path(OUTPUT.value)]
        if len(paths) > 1:
            named = [p.parent if p.name == "results.json" else p for p in paths]
            folders = [Path(OUTPUT.value) / path.stem for path in named]
    else:
        files = any(path.is_file() for path in paths)
        require("output", None, not files, "a folder for the report of a file")
    distinct = len({*folders}) == len(folders)
    require("runs", argv[1:], distinct, "runs of different names")
    for path, folder in zip(paths, folders, strict=True):
        if (path / SWEEP).exists():
            shown = reports.report_sweep(path, folder)
        else:
            results = reports.report_run(path, folder, DATA_DIR.value)
            shown = run_tables.tables(results)
        console.print(shown)
        console.print(f"the report: {folder / 'report.md'}")


if __name__ == "__main__":
    run(main)
