r"""Runs one experiment: trains a base model and a code, tries every erasure pattern.

    python -m coded_jax run --flagfile=quickstart.flags

Run the same command again to resume. Later flags win, so a variant of a flagfile is

    python -m coded_jax run --flagfile=table5_k2_r1.flags \
        --recipe=systematic --workdir=runs/table5_k2_r1_systematic
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from coded_jax.cli.command_line import command, command_text
from coded_jax.cli.experiment_flags import WORKDIR, prepare_from_flags
from coded_jax.codes import ConvolutionSplit, ViewSplit
from coded_jax.devices import processes, startup
from coded_jax.report import run_figures, run_tables
from coded_jax.report.formatting import stages_text
from coded_jax.runs import experiment
from coded_jax.runs.prepare import Experiment
from coded_jax.training import loop

PREPARING = (
    "preparing data, network and pieces (the first time also fast kernels, 10 s)"
)


ENOUGH = {
    "any_k": "any {k} results are enough",
    "one_of_each": "one copy of each piece is enough",
    "all_data": "all {k} pieces are needed",
}
"""Maps the name of a code's quorum to the results that suffice for an answer."""


def opening(prepared: Experiment, folder: str) -> list[str]:
    """Returns three lines on the data, the code and the folder of a run.

    Args:
      prepared: from `prepare`.
      folder: its workdir, as it was given.
    """
    config, data, pipeline = prepared.config, prepared.dataset, prepared.pipeline
    parts = (data.train, data.validation, data.test)
    train, validation, test = (f"{len(part.labels):,}" for part in parts)
    k, r, pieces = config.k, config.r, "pieces"
    if pipeline.examples.grouped:
        coded, pieces = f"{k} images are coded together", "images"
    elif isinstance(config.splitting, ConvolutionSplit):
        count = len(pipeline.stages)
        coded = f"the inputs of {count} convolutions are split into {k} pieces each"
    elif isinstance(config.splitting, ViewSplit):
        coded, pieces = f"{k} views cover each image", "views"
    else:
        stages = stages_text([stage.blocks for stage in pipeline.stages])
        anew = f" (anew before blocks {stages})" if config.stages else ""
        coded = f"each image is split into {k} pieces{anew}"
    made = f"{r} parity {pieces} are" if r != 1 else f"1 parity {pieces[:-1]} is"
    enough = ENOUGH[pipeline.stages[0].code.quorum.name].format(k=k)
    if pieces == "views":
        enough = (
            "any results make an answer, which is an estimate with all of them, too"
        )
    devices, here = pipeline.mesh.size if pipeline.mesh else 1, ""
    if devices < config.n:
        here = f" (here {devices} {jax.default_backend().upper()} in their place)"
    state = "a new run: Ctrl-C stops it, and the same command goes on"
    if prepared.resumed:
        state = "it goes on with what is there already"
    return [
        f"{data.name}: {train} images to train on, {validation} to choose the epoch "
        f"by, {test} to test; network {config.base_model}",
        f"{coded}, {made} made, {config.n} devices compute{here}; {enough}",
        f"folder {folder}; {state}",
    ]


def closing(results: dict[str, Any], folder: str) -> list[str]:
    """Returns the next steps after a run, each a purpose and its command.

    Args:
      results: the content of `results.json`.
      folder: its workdir, as it was given.
    """
    lines = []
    if Path("experiments/report.py").is_file():
        lines.append(
            f"a page with figures: python experiments/report.py {shlex.quote(folder)}"
        )
    ask = "logits" if results.get("values") else "classify"
    lines.append(
        "answers without device 1, in Python: "
        f"coded_jax.load({folder!r}).{ask}(images, lost=[1])"
    )
    return lines


@command(errors=(loop.NonFiniteError, OSError), resumes=True)
def main(argv: list[str]) -> None:
    """Runs the experiment of the flags, and prints its outcome."""
    startup.run_one_by_one()
    progress, console = Console(stderr=True), Console()
    with progress.status(PREPARING):
        prepared = prepare_from_flags()
    folder = WORKDIR.value
    if processes.is_lead():
        for line in opening(prepared, folder):
            progress.print(line, highlight=False)
    results = experiment.run(prepared, console=progress, command=command_text()).results
    if not processes.is_lead():
        return
    try:
        with progress.status("drawing figures"):
            run_figures.draw(Path(folder), results)
    except ImportError as error:
        console.print(str(error), markup=False)
    seconds = results["timing"]["seconds"].items()
    times = ", ".join(f"{name} {value:.0f}" for name, value in seconds)
    tables = run_tables.tables(results)
    console.print(tables, f"seconds: {times}", sep="\n", highlight=False)
    console.print(f"all of it is in {folder}; to try next:", highlight=False)
    for line in closing(results, folder):
        console.print(f"  {line}", highlight=False, soft_wrap=True, markup=False)
