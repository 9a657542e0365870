"""Evaluation in a run: every code of it under every erasure pattern, for every seed."""

from __future__ import annotations

from typing import Any, NamedTuple

from coded_jax.codes import erasures
from coded_jax.devices import processes
from coded_jax.evaluation import confidence, pattern_accuracy
from coded_jax.evaluation.pattern_accuracy import PatternAccuracy
from coded_jax.runs.progress import add_row
from coded_jax.runs.run_training import Run, Trained
from coded_jax.training import tasks
from coded_jax.training.loop import Interrupted


class Evaluated(NamedTuple):
    """Measurements on the test split or, of a search, on the validation part.

    Attributes:
      base_accuracy: of the base model.
      outcomes: of every code and seed, as in `Trained.codes`, for every pattern.
      confidence: of each code, see `confidence.mean_over_seeds`.
      others: `{losses: outcomes}` of `Config.other_stage_losses`.
    """

    base_accuracy: float
    outcomes: dict[str, list[list[PatternAccuracy]]]
    confidence: dict[str, dict[str, Any]]
    others: dict[str, dict[str, list[list[PatternAccuracy]]]]


def evaluate(run: Run, trained: Trained) -> Evaluated:
    """Evaluates every pattern with the code and with each baseline, for every seed.

    Raises:
      Interrupted: the run was asked to stop.
    """
    experiment, progress = run.experiment, run.progress
    config, frozen = experiment.config, trained.base.params
    patterns = erasures.patterns_up_to(config.n, config.most_tried)
    mesh, examples = experiment.pipeline.mesh, experiment.examples
    validation = tasks.device_arrays(mesh, examples.validation)
    measured = validation
    if config.evaluated == "test":
        measured = tasks.device_arrays(mesh, examples.test)
    bar = add_row(progress, "evaluation", sum(map(len, trained.codes.values())))
    outcomes: dict[str, list[list[PatternAccuracy]]] = {
        name: [] for name in trained.codes
    }
    others: dict[str, dict[str, list[list[PatternAccuracy]]]] = {
        losses: {name: [] for name in trained.codes}
        for losses in config.other_stage_losses
    }
    confidences: dict[str, dict[str, Any]] = {}
    for name, seeds in trained.codes.items():
        studies = []
        for fitted in seeds:
            inputs = (experiment.pipelines[name], frozen, fitted.params)
            per_pattern, study = confidence.study(
                *inputs, validation, measured, patterns, config.stage_losses
            )
            for losses, of_codes in others.items():
                of_codes[name].append(
                    pattern_accuracy.measure_patterns(
                        *inputs, measured, patterns, losses
                    )
                )
            outcomes[name].append(per_pattern)
            studies.append(study)
            progress.advance(bar)
            if processes.any_process(run.stop()):
                raise Interrupted("stopped in the evaluation, all training is saved")
        confidences[name] = confidence.mean_over_seeds(studies)
    accuracy = pattern_accuracy.base_accuracy(experiment.pipeline, frozen, measured)
    return Evaluated(accuracy, outcomes, confidences, others)
