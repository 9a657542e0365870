"""A run in plain words: what it is going to do, its phases, and what to try next."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import jax

from coded_jax.codes import LEARNED, ConvolutionSplit
from coded_jax.report.formatting import stages_text
from coded_jax.report.run_tables import works
from coded_jax.runs.phases import BASE, regime_of
from coded_jax.runs.prepare import Experiment
from coded_jax.runs.workdir import phase_of
from coded_jax.training.steps import steps_per_call

ENOUGH = {
    "any_k": "any {k} results are enough",
    "one_of_each": "one copy of each piece is enough",
    "all_data": "all {k} pieces are needed",
}
"""Maps the name of a code's quorum to the results that suffice for an answer."""
CHEAP = "--encoder=linear --decoder_width=32"
"""Sums of the pieces, and a narrow decoder, in the place of two MLPs."""


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
    else:
        stages = stages_text([stage.blocks for stage in pipeline.stages])
        anew = f" (anew before blocks {stages})" if config.stages else ""
        coded = f"each image is split into {k} pieces{anew}"
    made = f"{r} parity {pieces} are" if r != 1 else f"1 parity {pieces[:-1]} is"
    enough = ENOUGH[pipeline.stages[0].code.quorum.name].format(k=k)
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


def phases(prepared: Experiment) -> dict[str, int]:
    """Returns the steps of each phase that a run is going to have, in their order."""
    config, planned, evaluated = prepared.config, {}, 0
    if prepared.variables is None:
        examples = len(prepared.dataset.train.labels)
        planned[BASE] = regime_of(config, BASE).steps(examples)
    examples = len(prepared.examples.train.labels)
    for name, pipeline in prepared.pipelines.items():
        evaluated += config.seeds if pipeline.learns else 1
        if not pipeline.learns:
            continue
        names = [phase_of(name, seed) for seed in range(config.seeds)]
        if config.seeds > 1 and steps_per_call() > 1:  # an accelerator: all at once
            names = [f"{name}_0-{config.seeds - 1}"]
        planned |= dict.fromkeys(names, regime_of(config, name).steps(examples))
    kinds = 1 + len(config.other_stage_losses)
    planned["evaluation"] = kinds * evaluated
    return planned


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
    config, work = results["config"], works(results)
    networks = (config["code"], config["encoder"], config["decoder"])
    if networks == (LEARNED, "mlp", "mlp") and work[LEARNED] >= 1:
        words = shlex.split(results["command"])
        command = shlex.join(x for x in words if not x.startswith("--workdir="))
        lines.append(
            f"a code that costs less: {command} {CHEAP} "
            f"--workdir={shlex.quote(f'{folder}_cheap')}"
        )
    return lines
