"""The content of `results.json`, from all that a run measured."""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from coded_jax.codes import ImageSplit
from coded_jax.cpu_kernels import lowering
from coded_jax.evaluation import confidence
from coded_jax.evaluation.pattern_accuracy import PatternAccuracy, summarise
from coded_jax.inference import costs
from coded_jax.inference.pipeline import Pipeline
from coded_jax.runs import provenance, workdir
from coded_jax.runs.build import build_pipeline
from coded_jax.runs.config import Config
from coded_jax.runs.evaluate import Measured
from coded_jax.runs.phases import BASE, CODE
from coded_jax.runs.prepare import Experiment
from coded_jax.splitting.views import text_of
from coded_jax.training.loop import Fitted
from coded_jax.types import Plan, PyTree, ViewPlan


def content(
    experiment: Experiment,
    base: Fitted,
    codes: dict[str, list[Fitted]],
    base_accuracy: float,
    measured: dict[str, dict[str, list[Measured]]],
    *,
    command: str,
) -> dict[str, Any]:
    """Returns the content of `results.json`, in the layout that "Files of a run" in
    `docs/guides/train.md` gives.

    Args:
      experiment: that has run.
      base: the base model.
      codes: the code, as `"code"`, and each baseline by name, for every seed.
      base_accuracy, measured: see `evaluate.measure_codes`.
      command: that ran it.
    """
    config, dataset = experiment.config, experiment.dataset
    mesh, frozen = experiment.pipeline.mesh, base.params
    devices = mesh.devices.flatten().tolist() if mesh else jax.devices()[:1]
    on_cpu = jax.default_backend() == "cpu"
    numbers = {
        losses: _mapped(lambda seeds: [seed.patterns for seed in seeds], of)
        for losses, of in measured.items()
    }
    of_codes = (seeds for of in measured.values() for seeds in of.values())
    evaluation = sum(seed.seconds for seeds in of_codes for seed in seeds)
    outcomes = numbers.pop(config.stage_losses)
    rivals = {name: seeds for name, seeds in outcomes.items() if name != CODE}
    studies = _mapped(
        lambda seeds: confidence.mean_over_seeds([seed.confidence for seed in seeds]),
        measured[config.stage_losses],
    )
    several = {name: seeds for name, seeds in outcomes.items() if len(seeds) > 1}
    kind = {"positions": dataset.positions, "values": dataset.values}
    return {
        "config": config.to_json(),
        "command": command,
        "provenance": provenance.collect(command, config.to_flags(), devices),
        "versions": workdir.versions(),
        "machine": {
            "device": jax.devices()[0].device_kind,
            "cores": os.cpu_count(),
            "convolutions": lowering.convolutions() if on_cpu else "XLA",
            "mesh": dict(mesh.shape) if mesh else {},
            "processes": jax.process_count(),
        },
        "seed": config.seed,
        "steps": {BASE: base.steps} | _mapped(lambda seeds: seeds[0].steps, codes),
        "dataset": config.dataset,
        "image_shape": dataset.image_shape,
        "classes": dataset.classes,
        **{name: value for name, value in kind.items() if value},
        "normalisation": {"mean": dataset.mean, "std": dataset.std},
        "fingerprints": experiment.fingerprints,
        "base": {
            "validation_accuracy": base.score,
            f"{config.evaluated}_accuracy": float(base_accuracy),
            "numbers": sum(x.size for x in jax.tree.leaves(frozen)),
        },
        "code": {"validation_accuracy": [fitted.score for fitted in codes[CODE]]},
        "split": _split(experiment, frozen),
        "costs": _mapped(
            lambda x: costs.cost_of(x, frozen, dataset.image_shape).to_json(),
            experiment.pipelines,
        ),
        **_exact_rival(experiment, frozen),
        "recovery": _mapped(_recovery, experiment.pipelines),
        "patterns": _patterns(outcomes[CODE]),
        "patterns_of_baselines": _mapped(_patterns, rivals),
        "summary": summarise(outcomes[CODE]),
        "baselines": _mapped(summarise, rivals),
        "seeds": _mapped(lambda seeds: [summarise([x]) for x in seeds], several),
        "other_stage_losses": _mapped(lambda of: _mapped(summarise, of), numbers),
        "confidence": studies.pop(CODE),
        "confidence_of_baselines": _mapped(_without_curves, studies),
        "timing": _timing(experiment, base, codes, evaluation),
    }


def _timing(
    experiment: Experiment,
    base: Fitted,
    codes: dict[str, list[Fitted]],
    evaluation: float,
) -> dict[str, Any]:
    seconds = {BASE: base.seconds}
    seconds |= _mapped(lambda seeds: sum(seed.seconds for seed in seeds), codes)
    seconds["evaluation"] = evaluation
    # The wall time of former processes is not known, but that of their steps is.
    whole = time.perf_counter() - experiment.started
    seconds["total"] = sum(seconds.values()) if experiment.resumed else whole
    steps = sum(fitted.steps for fitted in codes[CODE])
    images = steps * experiment.config.batch_size * experiment.pipeline.images_per_input
    trained = seconds[CODE]
    return {
        "resumed": experiment.resumed,
        "train_images_per_second": round(images / trained, 1) if trained else None,
        "seconds": _mapped(lambda value: round(value, 2), seconds),
    }


def _mapped(f: Callable[[Any], Any], by_name: Mapping[str, Any]) -> dict[str, Any]:
    return {name: f(value) for name, value in by_name.items()}


def _without_curves(study: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return _mapped(lambda of: {x: y for x, y in of.items() if x != "curve"}, study)


def _recovery(pipeline: Pipeline) -> dict[str, Any]:
    code = pipeline.stages[0].code
    return {
        "systematic": code.systematic,
        "suffices": code.quorum.name,
        "answers_always": code.traits.answers_always,
    }


def _split(experiment: Experiment, frozen: PyTree) -> dict[str, Any]:
    """Returns `split`: sizes of the pieces, of the first coded stage and of each."""
    pipeline = experiment.pipeline
    height, width, channels = experiment.dataset.image_shape
    shape = (height * pipeline.images_per_input, width, channels)
    stages = costs.stage_costs(pipeline, frozen, shape)
    first = pipeline.stages[0].plan
    return {
        "k": pipeline.k,
        "r": pipeline.r,
        "grid": first.grid,
        "piece_shape": first.piece_shape,
        "exact": pipeline.exact,
        **_views(first),
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
    }


def _views(plan: Plan) -> dict[str, Any]:
    views = plan.views if isinstance(plan, ViewPlan) else ()
    return {"views": [*map(text_of, views)]} if views else {}


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
    uncoded = experiment.uncoded
    try:
        pipeline = build_pipeline(
            exact, uncoded.examples, dataset.classes, base=uncoded.base
        )
    except ValueError:
        return {}
    cost = costs.cost_of(pipeline, frozen, dataset.image_shape)
    return {"costs_of_exact_code": cost.to_json()}


def _patterns(seeds: Sequence[Sequence[PatternAccuracy]]) -> list[dict[str, Any]]:
    """Returns a record for each pattern, means over seeds."""
    records = []
    for of_seeds in zip(*seeds, strict=True):
        means = np.mean([outcome[1:] for outcome in of_seeds], axis=0)
        outcome = PatternAccuracy(of_seeds[0].lost, *means.tolist())
        record: dict[str, Any] = outcome._asdict()
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
