"""Evaluation in a run: every code of it under every erasure pattern, for every seed."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import jax

from coded_jax.codes import erasures
from coded_jax.devices import processes
from coded_jax.evaluation import confidence, pattern_accuracy
from coded_jax.evaluation.pattern_accuracy import PatternAccuracy
from coded_jax.runs import measurements, workdir
from coded_jax.runs.measurements import Measured
from coded_jax.runs.prepare import Experiment
from coded_jax.runs.progress import add_row
from coded_jax.runs.run_training import Run, Trained
from coded_jax.training import tasks
from coded_jax.training.loop import Interrupted
from coded_jax.types import PyTree


class Evaluated(NamedTuple):
    """Measurements on the test split or, of a search, on the validation part.

    Attributes:
      base_accuracy: of the base model.
      outcomes: of every code and seed, as in `Trained.codes`, for every pattern.
      confidence: of each code, see `confidence.mean_over_seeds`.
      others: `{losses: outcomes}` of `Config.other_stage_losses`.
      seconds: that they took, in former processes, too.
    """

    base_accuracy: float
    outcomes: dict[str, list[list[PatternAccuracy]]]
    confidence: dict[str, dict[str, Any]]
    others: dict[str, dict[str, list[list[PatternAccuracy]]]]
    seconds: float


class _Inputs(NamedTuple):
    """The inputs that all measurements of a run share.

    Attributes:
      experiment: that is measured.
      frozen: variables of the base model.
      validation: arrays of the validation part, which temperatures are chosen on.
      measured: arrays of the split that all else is measured on.
    """

    experiment: Experiment
    frozen: PyTree
    validation: dict[str, jax.Array]
    measured: dict[str, jax.Array]


def evaluate(run: Run, trained: Trained) -> Evaluated:
    """Evaluates every pattern with the code and with each baseline, for every seed.

    What a former process has measured is taken from the workdir.

    Raises:
      Interrupted: the run was asked to stop.
      OSError: the workdir can no longer be written to.
    """
    config = run.experiment.config
    inputs = _inputs(run.experiment, trained.base.params)
    kinds = (config.stage_losses, *config.other_stage_losses)
    total = len(kinds) * sum(map(len, trained.codes.values()))
    bar = add_row(run.progress, "evaluation", total)
    outcomes: dict[str, dict[str, list[list[PatternAccuracy]]]] = {
        losses: {name: [] for name in trained.codes} for losses in kinds
    }
    studies: dict[str, list[dict[str, Any]]] = {name: [] for name in trained.codes}
    seconds = 0.0
    for name, seeds in trained.codes.items():
        for seed, fitted in enumerate(seeds):
            for losses in kinds:
                measured = _kept_or_new(inputs, name, seed, fitted.params, losses)
                outcomes[losses][name].append(measured.patterns)
                if measured.confidence:
                    studies[name].append(measured.confidence)
                seconds += measured.seconds
                run.progress.advance(bar)
                if processes.any_process(run.stop()):
                    raise Interrupted("stopped in the evaluation, saved up to there")
    started = time.perf_counter()
    accuracy = pattern_accuracy.base_accuracy(
        run.experiment.pipeline, inputs.frozen, inputs.measured
    )
    return Evaluated(
        base_accuracy=accuracy,
        outcomes=outcomes.pop(config.stage_losses),
        confidence={
            name: confidence.mean_over_seeds(of_seeds)
            for name, of_seeds in studies.items()
        },
        others=outcomes,
        seconds=seconds + time.perf_counter() - started,
    )


def _inputs(experiment: Experiment, frozen: PyTree) -> _Inputs:
    """Places the arrays of the validation part, and of the split that is measured."""
    mesh, examples = experiment.pipeline.mesh, experiment.examples
    validation = tasks.device_arrays(mesh, examples.validation)
    measured = validation
    if experiment.config.evaluated == "test":
        measured = tasks.device_arrays(mesh, examples.test)
    return _Inputs(experiment, frozen, validation, measured)


def _kept_or_new(
    inputs: _Inputs, name: str, seed: int, params: PyTree, losses: str
) -> Measured:
    """Takes the measurements of a code from the workdir, or makes and keeps them."""
    config = inputs.experiment.config
    path = workdir.measured_file(
        inputs.experiment.folder, workdir.phase_of(name, seed), losses
    )
    patterns = erasures.patterns_up_to(config.n, config.most_tried)
    variables = [inputs.frozen, params]
    digest = measurements.digest_of(patterns, [losses, config.evaluated], variables)
    kept = measurements.read(path, digest)
    lacking = processes.any_process(kept is None)
    if kept is not None and not lacking:
        return kept
    fresh = _measure(inputs, name, params, losses)
    if processes.is_lead():
        measurements.write(path, digest, fresh)
    return fresh


def _measure(inputs: _Inputs, name: str, params: PyTree, losses: str) -> Measured:
    """Tries every pattern; studies confidence under the run's own losses alone."""
    config = inputs.experiment.config
    started = time.perf_counter()
    patterns = erasures.patterns_up_to(config.n, config.most_tried)
    code = (inputs.experiment.pipelines[name], inputs.frozen, params)
    study: dict[str, Any] = {}
    if losses == config.stage_losses:
        splits = (inputs.validation, inputs.measured)
        accuracies, study = confidence.study(*code, *splits, patterns, losses)
    else:
        accuracies = pattern_accuracy.measure_patterns(
            *code, inputs.measured, patterns, losses
        )
    return Measured(accuracies, study, time.perf_counter() - started)
