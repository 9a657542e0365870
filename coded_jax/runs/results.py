"""What a run found out, as `results.json` keeps it."""

from __future__ import annotations

import math
import os
import platform
import statistics
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from coded_jax.evaluation import pattern_accuracy
from coded_jax.evaluation.pattern_accuracy import PatternAccuracy
from coded_jax.inference import costs
from coded_jax.inference.pipeline import Pipeline
from coded_jax.runs import reading, workdir
from coded_jax.runs.phases import Evaluated, Trained
from coded_jax.runs.prepare import Experiment
from coded_jax.types import PyTree


def content(
    experiment: Experiment,
    trained: Trained,
    evaluated: Evaluated,
    seconds: dict[str, float],
    command: str,
) -> dict[str, Any]:
    """The content of `results.json`, whose layout the README's "Files of a run" gives.

    Args:
      experiment: that has run.
      trained: its networks.
      evaluated: what they were measured to do.
      seconds: of each phase.
      command: that ran it.
    """
    config, dataset = experiment.config, experiment.dataset
    pipeline, mesh = experiment.pipeline, experiment.pipeline.mesh
    fitted, outcomes = trained.codes["code"], evaluated.outcomes
    images = (
        sum(each.steps for each in fitted)
        * config.batch_size
        * pipeline.images_per_input
    )
    seconds_of_code = sum(each.seconds for each in fitted)
    return {
        "config": config.to_json(),
        "command": command,
        "versions": {"python": platform.python_version(), **workdir.versions()},
        "machine": {
            "device": jax.devices()[0].device_kind,
            "cores": os.cpu_count(),
            "mesh": dict(mesh.shape) if mesh else {},
            "processes": jax.process_count(),
        },
        "seed": config.seed,
        "steps": {
            "base": trained.base.steps,
            **{name: seeds[0].steps for name, seeds in trained.codes.items()},
        },
        "dataset": config.dataset,
        "image_shape": dataset.image_shape,
        "classes": dataset.classes,
        "normalisation": {"mean": dataset.mean, "std": dataset.std},
        "base": {
            "test_accuracy": evaluated.base_accuracy,
            "validation_accuracy": trained.base.score,
        },
        "code": {"validation_accuracy": [each.score for each in fitted]},
        "split": {
            "k": config.k,
            "r": config.r,
            "grid": config.pieces,
            "piece_shape": pipeline.stages[0].plan.piece_shape,
            **_work(experiment, trained.base.params),
        },
        "costs": {
            name: _costs(experiment, each, trained.base.params)
            for name, each in trained.pipelines.items()
        },
        "recovery": {
            name: reading.recovery_of(each.stages[0].code)._asdict()
            for name, each in trained.pipelines.items()
        },
        "patterns": _patterns(outcomes["code"]),
        "patterns_of_baselines": {
            name: _patterns(found) for name, found in outcomes.items() if name != "code"
        },
        "summary": pattern_accuracy.summarise(outcomes["code"]),
        "baselines": {
            name: pattern_accuracy.summarise(found)
            for name, found in outcomes.items()
            if name != "code"
        },
        "seeds": {
            name: [pattern_accuracy.summarise([seed]) for seed in seeds]
            for name, seeds in outcomes.items()
            if len(seeds) > 1
        },
        "confidence": evaluated.confidence["code"],
        "confidence_of_baselines": {
            name: {
                l: {key: value for key, value in found.items() if key != "curve"}
                for l, found in studied.items()
            }
            for name, studied in evaluated.confidence.items()
            if name != "code"
        },
        "timing": {
            "resumed": experiment.resumed,
            "train_images_per_second": (
                round(images / seconds_of_code, 1) if seconds_of_code else None
            ),
            "seconds": {name: round(s, 2) for name, s in seconds.items()},
        },
    }


def _patterns(seeds: Sequence[Sequence[PatternAccuracy]]) -> list[dict[str, Any]]:
    """Every pattern's outcome; of one pattern, all seeds have theirs in its place."""
    return [_pattern(same) for same in zip(*seeds, strict=True)]


def _pattern(seeds: Sequence[PatternAccuracy]) -> dict[str, Any]:
    """One pattern's outcome, the mean over seeds."""
    means = np.mean([outcome[1:] for outcome in seeds], axis=0)
    values = [seeds[0].lost, *map(float, means)]
    fields: dict[str, Any] = dict(zip(PatternAccuracy._fields, values, strict=True))
    for name in ("feature_mse", "decoded_accuracy"):
        if math.isnan(fields[name]):  # no answer, or none decoded; JSON has no NaN
            fields[name] = None
    if len(seeds) > 1:
        fields["accuracy_std"] = statistics.stdev(o.accuracy for o in seeds)
    return fields


def _input_shape(experiment: Experiment) -> tuple[int, int, int]:
    height, width, channels = experiment.dataset.image_shape
    return height * experiment.pipeline.images_per_input, width, channels


def _costs(
    experiment: Experiment, pipeline: Pipeline, frozen: PyTree
) -> dict[str, float]:
    """Flops for one image: of all blocks, and of what a device does of them."""
    found = costs.stage_costs(pipeline, frozen, _input_shape(experiment))
    coded = [cost for cost in found if cost.plan]
    return {
        "whole": sum(cost.flops for cost in found) / pipeline.images_per_input,
        "uncoded": sum(cost.flops for cost in found if not cost.plan)
        / pipeline.images_per_input,
        "piece": sum(cost.piece_flops for cost in coded) / pipeline.images_per_input,
        "encode": sum(cost.encode_flops for cost in coded) / pipeline.images_per_input,
        "decode": sum(cost.decode_flops for cost in coded) / pipeline.images_per_input,
    }


def _work(experiment: Experiment, frozen: PyTree) -> dict[str, Any]:
    """What one device computes, over what it would without splitting."""
    found = costs.stage_costs(experiment.pipeline, frozen, _input_shape(experiment))
    coded = [cost for cost in found if cost.plan]
    return {
        "work_fraction": round(costs.work_fraction(found), 4),
        "coded_fraction": round(costs.coded_fraction(found), 4),
        "stages": [
            {
                "blocks": cost.blocks,
                "piece_shape": cost.plan.piece_shape,
                "share_shape": cost.plan.share_shape,
                "work_fraction": round(cost.plan.work_fraction, 4),
            }
            for cost in coded
            if cost.plan
        ],
    }
