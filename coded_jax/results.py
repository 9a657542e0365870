"""What a run found out, as `results.json` keeps it."""

from __future__ import annotations

import dataclasses
import os
import platform
from typing import TYPE_CHECKING, Any

import jax

from coded_jax import costs, evaluation, workdir
from coded_jax.evaluation import Outcome
from coded_jax.types import PyTree

if TYPE_CHECKING:
    from coded_jax.experiment import Experiment, Trained


def content(
    experiment: Experiment,
    trained: Trained,
    base_accuracy: float,
    outcomes: dict[str, list[Outcome]],
    seconds: dict[str, float],
    command: str,
) -> dict[str, Any]:
    """The content of `results.json`, whose layout the README's "Files of a run" gives.

    Args:
      experiment: that has run.
      trained: its networks.
      base_accuracy: of the base model on the test split.
      outcomes: of the code and each baseline, on the test split.
      seconds: of each phase.
      command: that ran it.
    """
    config, dataset = experiment.config, experiment.dataset
    pipeline, mesh = experiment.pipeline, experiment.pipeline.mesh
    images = trained.code.steps * config.batch_size
    return {
        "config": dataclasses.asdict(config),
        "command": command,
        "versions": {"python": platform.python_version(), **workdir.versions()},
        "machine": {
            "device": jax.devices()[0].device_kind,
            "cores": os.cpu_count(),
            "mesh": dict(mesh.shape) if mesh else {},
            "processes": jax.process_count(),
        },
        "seed": config.seed,
        "steps": {name: fitted.steps for name, fitted in trained._asdict().items()},
        "dataset": config.dataset,
        "image_shape": dataset.image_shape,
        "classes": dataset.classes,
        "normalisation": {"mean": dataset.mean, "std": dataset.std},
        "base": {
            "test_accuracy": base_accuracy,
            "validation_accuracy": trained.base.score,
        },
        "code": {"validation_accuracy": trained.code.score},
        "split": {
            "k": config.k,
            "r": config.r,
            "grid": config.pieces,
            "piece_shape": pipeline.codings[0].plan.piece_shape,
            **_work(experiment, trained.base.params),
        },
        "patterns": [outcome._asdict() for outcome in outcomes["code"]],
        "summary": evaluation.summarise(outcomes["code"]),
        "baselines": {
            name: evaluation.summarise(found)
            for name, found in outcomes.items()
            if name != "code"
        },
        "timing": {
            "resumed": experiment.resumed,
            "train_images_per_second": round(images / trained.code.seconds, 1),
            "seconds": {name: round(s, 2) for name, s in seconds.items()},
        },
    }


def _work(experiment: Experiment, frozen: PyTree) -> dict[str, Any]:
    """What one device computes, over what it would without splitting."""
    shape = experiment.dataset.image_shape
    found = costs.stage_costs(experiment.pipeline, frozen, shape)
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
