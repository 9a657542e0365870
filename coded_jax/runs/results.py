"""The content of `results.json`, from all that a run measured."""

from __future__ import annotations

import math
import os
import platform
import statistics
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from coded_jax.codes import ImageSplit
from coded_jax.cpu_kernels import lowering
from coded_jax.evaluation.pattern_accuracy import PatternAccuracy, summarise
from coded_jax.inference import costs
from coded_jax.runs import provenance, workdir
from coded_jax.runs.build import build_pipeline
from coded_jax.runs.config import Config
from coded_jax.runs.measurements import MeasuredCodes
from coded_jax.runs.phases import BASE, CODE
from coded_jax.runs.prepare import Experiment
from coded_jax.training.loop import Fitted
from coded_jax.types import PyTree


def content(
    experiment: Experiment,
    base: Fitted,
    codes: dict[str, list[Fitted]],
    measured: MeasuredCodes,
    *,
    seconds: dict[str, float],
    start_up: dict[str, float],
    command: str,
) -> dict[str, Any]:
    """Returns the content of `results.json`, in the layout that "Files of a run" in
    `docs/guides/train.md` gives.

    Args:
      experiment: that has run.
      base: the base model.
      codes: the code, as `"code"`, and each baseline by name, for every seed.
      measured: their measurements.
      seconds: of each phase.
      start_up: seconds of checks and data before it, and of compilation within it.
      command: that ran it.
    """
    config, dataset = experiment.config, experiment.dataset
    pipeline, frozen = experiment.pipeline, base.params
    mesh = pipeline.mesh
    devices = mesh.devices.flatten().tolist() if mesh else jax.devices()[:1]
    on_cpu = jax.default_backend() == "cpu"
    height, width, channels = dataset.image_shape
    input_shape = (height * pipeline.images_per_input, width, channels)
    stages = costs.stage_costs(pipeline, frozen, input_shape)
    first = pipeline.stages[0].plan
    outcomes, studies = measured.outcomes, measured.confidence
    rivals = {name: seeds for name, seeds in outcomes.items() if name != CODE}
    seeds = codes[CODE]
    trained_seconds = sum(fitted.seconds for fitted in seeds)
    images = sum(fitted.steps for fitted in seeds) * config.batch_size
    images_per_second = None
    if trained_seconds:
        images_per_second = images * pipeline.images_per_input / trained_seconds
    rounded = lambda times: {name: round(value, 2) for name, value in times.items()}
    return {
        "config": config.to_json(),
        "command": command,
        "provenance": provenance.collect(command, config.to_flags(), devices),
        "versions": {"python": platform.python_version(), **workdir.versions()},
        "machine": {
            "device": jax.devices()[0].device_kind,
            "cores": os.cpu_count(),
            "convolutions": lowering.convolutions() if on_cpu else "XLA",
            "mesh": dict(mesh.shape) if mesh else {},
            "processes": jax.process_count(),
        },
        "seed": config.seed,
        "steps": {
            BASE: base.steps,
            **{name: fitted[0].steps for name, fitted in codes.items()},
        },
        "dataset": config.dataset,
        "image_shape": dataset.image_shape,
        "classes": dataset.classes,
        **({"positions": dataset.positions} if dataset.positions else {}),
        **({"values": True} if dataset.values else {}),
        "normalisation": {"mean": dataset.mean, "std": dataset.std},
        "fingerprints": experiment.fingerprints,
        "base": {
            "validation_accuracy": base.score,
            f"{config.evaluated}_accuracy": float(measured.base_accuracy),
            "numbers": sum(x.size for x in jax.tree.leaves(frozen)),
        },
        "code": {"validation_accuracy": [fitted.score for fitted in seeds]},
        "split": {
            "k": config.k,
            "r": config.r,
            "grid": first.grid,
            "piece_shape": first.piece_shape,
            "work_fraction": round(costs.work_fraction(stages), 4),
            "coded_fraction": round(costs.coded_fraction(stages), 4),
            "stages": [
                {
                    "blocks": stage.blocks,
                    "grid": stage.plan.grid,
                    "piece_shape": stage.plan.piece_shape,
                    "share_shape": stage.plan.share_shape,
                    "work_fraction": round(stage.plan.work_fraction, 4),
                }
                for stage in stages
                if stage.plan
            ],
        },
        "costs": {
            name: costs.cost_of(coded, frozen, dataset.image_shape).to_json()
            for name, coded in experiment.pipelines.items()
        },
        **_exact_rival(experiment, frozen),
        "recovery": {
            name: {
                "systematic": coded.stages[0].code.systematic,
                "suffices": coded.stages[0].code.quorum.name,
                "answers_always": coded.stages[0].code.traits.answers_always,
            }
            for name, coded in experiment.pipelines.items()
        },
        "patterns": _patterns(outcomes[CODE]),
        "patterns_of_baselines": {
            name: _patterns(of_seeds) for name, of_seeds in rivals.items()
        },
        "summary": summarise(outcomes[CODE]),
        "baselines": {name: summarise(of_seeds) for name, of_seeds in rivals.items()},
        "seeds": {
            name: [summarise([one]) for one in of_seeds]
            for name, of_seeds in outcomes.items()
            if len(of_seeds) > 1
        },
        "other_stage_losses": {
            losses: {name: summarise(of_seeds) for name, of_seeds in others.items()}
            for losses, others in measured.others.items()
        },
        "confidence": studies[CODE],
        "confidence_of_baselines": {
            name: {
                lost: {key: value for key, value in fields.items() if key != "curve"}
                for lost, fields in studies[name].items()
            }
            for name in rivals
        },
        "timing": {
            "resumed": experiment.resumed,
            "train_images_per_second": images_per_second
            and round(images_per_second, 1),
            "seconds": rounded(seconds),
            "start_up": rounded(start_up),
        },
    }


def _exact_rival(experiment: Experiment, frozen: PyTree) -> dict[str, Any]:
    """Returns `costs_of_exact_code` of a run that codes pieces of the image: the cost
    of what needs no training and loses nothing, an exact code of every convolution in
    the same blocks. Nothing where these cannot be taken apart into convolutions."""
    config, dataset = experiment.config, experiment.dataset
    if not isinstance(config.splitting, ImageSplit):
        return {}
    exact = Config(
        k=config.k,
        r=config.r,
        stages=config.stages,
        code="mds",
        split="convolution",
        parity_moves=config.parity_moves,
        baselines=(),
    )
    base, shape = experiment.uncoded.base, dataset.image_shape
    try:
        pipeline = build_pipeline(
            exact, shape, dataset.classes, dataset.mean, dataset.std, base=base
        )
    except ValueError:
        return {}
    cost = costs.cost_of(pipeline, frozen, shape)
    return {"costs_of_exact_code": cost.to_json()}


def _patterns(seeds: Sequence[Sequence[PatternAccuracy]]) -> list[dict[str, Any]]:
    """Returns a record for each pattern, means over seeds."""
    records = []
    for of_seeds in zip(*seeds, strict=True):
        means = np.mean([outcome[1:] for outcome in of_seeds], axis=0)
        values = [of_seeds[0].lost, *map(float, means)]
        record: dict[str, Any] = dict(zip(PatternAccuracy._fields, values, strict=True))
        for name in ("mean_iou", "psnr"):
            if math.isnan(record[name]):  # of other answers
                del record[name]
        for name in ("feature_mse", "decoded_accuracy"):
            if math.isnan(record[name]):  # no answer, or none decoded; JSON has no NaN
                record[name] = None
        if len(of_seeds) > 1:
            deviation = statistics.stdev(outcome.accuracy for outcome in of_seeds)
            record["accuracy_std"] = deviation
        records.append(record)
    return records
