"""Evaluation in a run: every code of it under every erasure pattern, for every seed."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import jax

from coded_jax.codes import erasures
from coded_jax.codes.erasures import Pattern
from coded_jax.devices import processes
from coded_jax.evaluation import confidence, pattern_accuracy
from coded_jax.evaluation.pattern_accuracy import PatternAccuracy
from coded_jax.evaluation.predictions import TrainedPipeline
from coded_jax.runs import fingerprints, measurements, workdir
from coded_jax.runs.measurements import Measured
from coded_jax.runs.prepare import Experiment
from coded_jax.runs.progress import add_row, begin_at
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
      experiment: that is evaluated.
      patterns: that are tried.
      frozen: variables of the base model.
      validation: arrays of the validation part, which temperatures are chosen on.
      scored: arrays of the split that all else is measured on.
      digest: of all that measurements depend on but patterns, losses and the code;
        None where they are not kept.
    """

    experiment: Experiment
    patterns: list[Pattern]
    frozen: PyTree
    validation: dict[str, jax.Array]
    scored: dict[str, jax.Array]
    digest: str | None


def evaluate(run: Run, trained: Trained) -> Evaluated:
    """Evaluates every pattern with the code and with each baseline, for every seed.

    What a former process has measured is taken from the workdir, unless
    `keep_measured` is off or the code has uncommitted changes.

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
    seconds, ready = 0.0, 0
    for name, seeds in trained.codes.items():
        for seed, fitted in enumerate(seeds):
            for losses in kinds:
                kept, measured = _kept_or_new(inputs, name, seed, fitted.params, losses)
                outcomes[losses][name].append(measured.patterns)
                if losses == config.stage_losses:
                    studies[name].append(measured.confidence)
                seconds, ready = seconds + measured.seconds, ready + 1
                if kept:
                    begin_at(run.progress, bar, ready)
                else:
                    run.progress.advance(bar)
                if processes.any_process(run.stop()):
                    raise Interrupted("stopped in the evaluation, saved up to there")
    started = time.perf_counter()
    accuracy = pattern_accuracy.base_accuracy(
        run.experiment.pipeline, inputs.frozen, inputs.scored
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
    """Places the arrays of the validation part, and of the split that is scored."""
    config, examples = experiment.config, experiment.examples
    splits = [examples.validation, examples.validation]
    if config.evaluated == "test":
        splits[1] = examples.test
    arrays = [array for split in splits for array in (split.images, split.labels)]
    return _Inputs(
        experiment,
        erasures.patterns_up_to(config.n, config.most_tried),
        frozen,
        *(tasks.device_arrays(experiment.pipeline.mesh, split) for split in splits),
        _digest(experiment, [*arrays, *jax.tree.leaves(frozen)]),
    )


def _digest(experiment: Experiment, arrays: list[jax.Array]) -> str | None:
    """Returns the digest of settings, versions, variables and images that kept
    measurements are found by; None where none are kept, by some process at least."""
    circumstances = measurements.circumstances()
    keeps = circumstances is not None and experiment.config.keep_measured
    if processes.any_process(not keeps) or circumstances is None:
        return None
    settings = experiment.config.to_flags() | experiment.fingerprints
    texts = [
        f"{name}={text}"
        for name, text in settings.items()
        if name not in workdir.EXTENT and not name.startswith("baseline_")
    ]
    return fingerprints.digest([*circumstances, *texts], arrays)


def _kept_or_new(
    inputs: _Inputs, name: str, seed: int, params: PyTree, losses: str
) -> tuple[bool, Measured]:
    """Takes the measurements of a code from the workdir, or makes and keeps them.

    Returns:
      Whether they were kept before, and the measurements.
    """
    if inputs.digest is None:
        return False, _measure(inputs, name, params, losses)
    experiment = inputs.experiment
    file = workdir.measured_file(
        experiment.folder, workdir.phase_of(name, seed), losses
    )
    function = experiment.fingerprints.get(f"baseline_{name}", "")
    texts = [inputs.digest, str(inputs.patterns), losses, name, function]
    digest = fingerprints.digest(texts, jax.tree.leaves(params))
    kept = measurements.read(file, digest)
    lacking = processes.any_process(kept is None)
    if kept is not None and not lacking:
        return True, kept
    fresh = _measure(inputs, name, params, losses)
    measurements.write(file, digest, fresh)
    return False, fresh


def _measure(inputs: _Inputs, name: str, params: PyTree, losses: str) -> Measured:
    """Tries every pattern; studies the confidence of classes, under the run's own
    losses alone."""
    experiment = inputs.experiment
    started = time.perf_counter()
    code = TrainedPipeline(experiment.pipelines[name], inputs.frozen, params)
    study: dict[str, Any] = {}
    if losses == experiment.config.stage_losses and not experiment.dataset.values:
        splits = (inputs.validation, inputs.scored)
        accuracies, study = confidence.study(code, *splits, inputs.patterns, losses)
    else:
        accuracies = pattern_accuracy.measure_patterns(
            code, inputs.scored, inputs.patterns, losses
        )
    return Measured(accuracies, study, time.perf_counter() - started)
