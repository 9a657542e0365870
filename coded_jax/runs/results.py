"""The content of `results.json`, from all that a run measured."""

from __future__ import annotations

import math
import os
import platform
import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from coded_jax.codes import ImageSplit
from coded_jax.cpu_kernels import lowering
from coded_jax.evaluation import pattern_accuracy
from coded_jax.evaluation.pattern_accuracy import PatternAccuracy
from coded_jax.inference import costs
from coded_jax.runs import provenance, reading, workdir
from coded_jax.runs.build import build_pipeline
from coded_jax.runs.config import Config
from coded_jax.runs.measurements import MeasuredCodes
from coded_jax.runs.prepare import Experiment
from coded_jax.training.loop import Fitted


class Finished(NamedTuple):
    """A run that has ended.

    Attributes:
      experiment: that has run.
      base: the base model.
      codes: the code, as `"code"`, and each baseline by name, for every seed.
      measured: their measurements.
      seconds: of each phase.
      start_up: seconds of checks and data before it, and of compilation within it.
      command: that ran it.
    """

    experiment: Experiment
    base: Fitted
    codes: dict[str, list[Fitted]]
    measured: MeasuredCodes
    seconds: dict[str, float]
    start_up: dict[str, float]
    command: str


def content(run: Finished) -> dict[str, Any]:
    """Returns the content of `results.json`, in the layout that the README gives."""
    config, dataset = run.experiment.config, run.experiment.dataset
    return {
        "config": config.to_json(),
        **_origin(run),
        "seed": config.seed,
        "steps": {
            "base": run.base.steps,
            **{name: seeds[0].steps for name, seeds in run.codes.items()},
        },
        "dataset": config.dataset,
        "image_shape": dataset.image_shape,
        "classes": dataset.classes,
        **({"positions": dataset.positions} if dataset.positions else {}),
        **({"values": True} if dataset.values else {}),
        "normalisation": {"mean": dataset.mean, "std": dataset.std},
        "fingerprints": run.experiment.fingerprints,
        "base": {
            "validation_accuracy": run.base.score,
            f"{config.evaluated}_accuracy": float(run.measured.base_accuracy),
            "numbers": sum(x.size for x in jax.tree.leaves(run.base.params)),
        },
        "code": {"validation_accuracy": [seed.score for seed in run.codes["code"]]},
        "split": _split(run),
        "costs": {
            name: costs.cost_of(
                pipeline, run.base.params, dataset.image_shape
            ).to_json()
            for name, pipeline in run.experiment.pipelines.items()
        },
        **_exact_rival(run),
        "recovery": {
            name: reading.recovery_of(pipeline.stages[0].code)._asdict()
            for name, pipeline in run.experiment.pipelines.items()
        },
        **_accuracies(run.measured.outcomes),
        "other_stage_losses": {
            losses: {
                name: pattern_accuracy.summarise(seeds)
                for name, seeds in outcomes.items()
            }
            for losses, outcomes in run.measured.others.items()
        },
        **_confidences(run.measured.confidence),
        "timing": _timing(run),
    }


def _origin(run: Finished) -> dict[str, Any]:
    """Returns the origin of the run: `command`, `provenance` and the like."""
    config, mesh = run.experiment.config, run.experiment.pipeline.mesh
    devices = mesh.devices.flatten().tolist() if mesh else jax.devices()[:1]
    origin = provenance.collect(run.command, config.to_flags(), devices)
    return {
        "command": run.command,
        "provenance": origin.to_json(),
        "versions": {"python": platform.python_version(), **workdir.versions()},
        "machine": {
            "device": jax.devices()[0].device_kind,
            "cores": os.cpu_count(),
            "convolutions": (
                lowering.convolutions() if jax.default_backend() == "cpu" else "XLA"
            ),
            "mesh": dict(mesh.shape) if mesh else {},
            "processes": jax.process_count(),
        },
    }


def _split(run: Finished) -> dict[str, Any]:
    """Returns the sizes of pieces, and the work of a device over that unsplit."""
    experiment, config = run.experiment, run.experiment.config
    pipeline, frozen = experiment.pipeline, run.base.params
    stages = costs.stage_costs(pipeline, frozen, _input_shape(experiment))
    coded = [(cost, cost.plan) for cost in stages if cost.plan]
    return {
        "k": config.k,
        "r": config.r,
        "grid": pipeline.stages[0].plan.grid,
        "piece_shape": pipeline.stages[0].plan.piece_shape,
        "work_fraction": round(costs.work_fraction(stages), 4),
        "coded_fraction": round(costs.coded_fraction(stages), 4),
        "stages": [
            {
                "blocks": cost.blocks,
                "grid": plan.grid,
                "piece_shape": plan.piece_shape,
                "share_shape": plan.share_shape,
                "work_fraction": round(plan.work_fraction, 4),
            }
            for cost, plan in coded
        ],
    }


def _exact_rival(run: Finished) -> dict[str, Any]:
    """Returns `costs_of_exact_code` of a run that codes pieces of the image: the cost
    of what needs no training and loses nothing, an exact code of every convolution in
    the same blocks. Nothing where these cannot be taken apart into convolutions."""
    experiment, config = run.experiment, run.experiment.config
    if not isinstance(config.splitting, ImageSplit):
        return {}
    shape, pipeline = experiment.dataset.image_shape, experiment.pipeline
    try:
        exact = build_pipeline(
            Config(
                k=config.k,
                r=config.r,
                stages=config.stages,
                code="mds",
                split="convolution",
                parity_moves=config.parity_moves,
                baselines=(),
            ),
            shape,
            experiment.dataset.classes,
            pipeline.mean,
            pipeline.std,
            base=experiment.uncoded.base,
        )
    except ValueError:
        return {}
    cost = costs.cost_of(exact, run.base.params, shape)
    return {"costs_of_exact_code": cost.to_json()}


def _input_shape(experiment: Experiment) -> tuple[int, int, int]:
    height, width, channels = experiment.dataset.image_shape
    return height * experiment.pipeline.images_per_input, width, channels


def _accuracies(outcomes: dict[str, list[list[PatternAccuracy]]]) -> dict[str, Any]:
    """Returns the accuracies of the code and of each baseline, under all patterns."""
    rivals = {name: seeds for name, seeds in outcomes.items() if name != "code"}
    return {
        "patterns": _patterns(outcomes["code"]),
        "patterns_of_baselines": {
            name: _patterns(seeds) for name, seeds in rivals.items()
        },
        "summary": pattern_accuracy.summarise(outcomes["code"]),
        "baselines": {
            name: pattern_accuracy.summarise(seeds) for name, seeds in rivals.items()
        },
        "seeds": {
            name: [pattern_accuracy.summarise([seed]) for seed in seeds]
            for name, seeds in outcomes.items()
            if len(seeds) > 1
        },
    }


def _confidences(studies: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Returns the calibration of the code, and of each baseline without its curve."""
    return {
        "confidence": studies["code"],
        "confidence_of_baselines": {
            name: {
                lost: {key: value for key, value in fields.items() if key != "curve"}
                for lost, fields in study.items()
            }
            for name, study in studies.items()
            if name != "code"
        },
    }


def _timing(run: Finished) -> dict[str, Any]:
    """Returns the seconds of each phase, and the images that the code trained on."""
    experiment, seeds = run.experiment, run.codes["code"]
    per_step = experiment.config.batch_size * experiment.pipeline.images_per_input
    images = sum(fitted.steps for fitted in seeds) * per_step
    seconds = sum(fitted.seconds for fitted in seeds)
    return {
        "resumed": experiment.resumed,
        "train_images_per_second": round(images / seconds, 1) if seconds else None,
        "seconds": {name: round(value, 2) for name, value in run.seconds.items()},
        "start_up": {name: round(value, 2) for name, value in run.start_up.items()},
    }


def _patterns(seeds: Sequence[Sequence[PatternAccuracy]]) -> list[dict[str, Any]]:
    """Returns a record for each pattern, from a list of all patterns for each seed."""
    return [_pattern(same) for same in zip(*seeds, strict=True)]


def _pattern(seeds: Sequence[PatternAccuracy]) -> dict[str, Any]:
    """Returns one pattern's outcome, the mean over seeds."""
    means = np.mean([outcome[1:] for outcome in seeds], axis=0)
    values = [seeds[0].lost, *map(float, means)]
    fields: dict[str, Any] = dict(zip(PatternAccuracy._fields, values, strict=True))
    for name in ("mean_iou", "psnr"):
        if math.isnan(fields[name]):  # of other answers
            del fields[name]
    for name in ("feature_mse", "decoded_accuracy"):
        if math.isnan(fields[name]):  # no answer, or none decoded; JSON has no NaN
            fields[name] = None
    if len(seeds) > 1:
        fields["accuracy_std"] = statistics.stdev(o.accuracy for o in seeds)
    return fields
