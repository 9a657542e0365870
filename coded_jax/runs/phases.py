"""The phases of an experiment: base model, codes, baselines, and the evaluation."""

from __future__ import annotations

import dataclasses
import functools
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from coded_jax.codes import erasures
from coded_jax.data import groups
from coded_jax.devices import processes
from coded_jax.evaluation import confidence, inspection, pattern_accuracy
from coded_jax.evaluation.pattern_accuracy import PatternAccuracy
from coded_jax.inference.pipeline import Pipeline
from coded_jax.runs import workdir
from coded_jax.runs.build import batch_size_of, epochs_of, learning_rate, make_optimizer
from coded_jax.runs.logs import PhaseLog
from coded_jax.runs.prepare import Experiment
from coded_jax.runs.progress import LiveTable, add_row
from coded_jax.runs.seeds import fit_seeds
from coded_jax.training import checkpoints, losses, tasks
from coded_jax.training.loop import (
    FitConfig,
    Fitted,
    Interrupted,
    Task,
    fit,
    total_steps,
)
from coded_jax.training.steps import initial_state
from coded_jax.types import Dataset, PyTree, Split


class Trained(NamedTuple):
    """The outcomes of all training."""

    base: Fitted
    pipelines: dict[str, Pipeline]  # with the code, as `"code"`, and with each baseline
    codes: dict[str, list[Fitted]]  # of each of them, for every seed

    @property
    def seconds(self) -> dict[str, float]:
        """Of training steps, of the base model, the code and each baseline."""
        codes = {
            name: sum(f.seconds for f in each) for name, each in self.codes.items()
        }
        return {"base": self.base.seconds, **codes}


class Run(NamedTuple):
    """What the phases of one run share."""

    experiment: Experiment
    progress: LiveTable
    stop: Callable[[], bool]  # whether to save and end

    def fit(
        self,
        phase: str,
        key: jax.Array,
        task: Task,
        frozen: PyTree,
        arrays: dict,
        folder: Path,
        picture: Callable[[PyTree], np.ndarray] | None = None,
    ) -> Fitted:
        """`training.fit` with the checkpoints, and the log, of a phase in `folder`."""
        config, examples = self.experiment.config, len(arrays["labels"])
        epochs, batch_size = epochs_of(config, phase), batch_size_of(config, phase)
        steps = total_steps(examples, batch_size, epochs)
        rate = learning_rate(config, phase, examples)
        directory = workdir.checkpoint_folder(folder, phase)
        mesh = self.experiment.pipeline.mesh
        extent = FitConfig(epochs, batch_size, directory, mesh)
        fit_observed = functools.partial(
            fit, task, frozen, arrays, key, extent, stop=self.stop
        )
        if not processes.is_lead():
            return fit_observed()
        settings = (steps, batch_size, rate, picture)
        with PhaseLog(folder, phase, self.progress, *settings) as log:
            return fit_observed(observer=log)


def train_base(run: Run) -> Fitted:
    """The base model, trained in the folder that runs share if there is one."""
    experiment = run.experiment
    config, dataset, folder = experiment.config, experiment.dataset, experiment.folder
    pipeline = experiment.uncoded
    if experiment.variables is not None:
        validation = tasks.device_arrays(pipeline.mesh, dataset.validation)
        score = pattern_accuracy.base_accuracy(
            pipeline, experiment.variables, validation
        )
        return Fitted(experiment.variables, score, 0, 0.0)
    arrays = tasks.device_arrays(pipeline.mesh, dataset.train)
    optimizer = make_optimizer(config, "base", len(dataset.train.labels))
    task = tasks.base_task(
        pipeline, dataset, optimizer, config.augmentation, config.label_smoothing
    )
    inputs = (jax.random.fold_in(jax.random.key(config.seed), 0), task, {}, arrays)
    if experiment.base_folder != folder:
        run.fit("base", *inputs, experiment.base_folder)
        if processes.is_lead():
            workdir.copy_checkpoints(experiment.base_folder, folder, "base")
        processes.any_process(False)  # the others wait for the copy
    return run.fit("base", *inputs, folder)


def train(run: Run) -> Trained:
    """All phases; each takes up what its checkpoints hold."""
    experiment = run.experiment
    config, folder = experiment.config, experiment.folder
    mesh = experiment.pipeline.mesh
    key = jax.random.key(config.seed)
    base = train_base(run)
    examples = examples_of(experiment)
    # The same for every code: they differ in their parity pieces only.
    arrays = tasks.device_arrays(mesh, examples.train)
    if config.code_augmentation == "none":
        arrays = losses.with_targets(experiment.pipeline, base.params, arrays)

    def train_code(name: str, pipeline: Pipeline) -> list[Fitted]:
        if not jax.tree.leaves(jax.eval_shape(pipeline.init, key)):
            nothing = pipeline.init(key)
            return [Fitted(nothing, None, 0, 0.0)]
        if all(stage.code.constants for stage in pipeline.stages):
            return [_constants(experiment, name, pipeline, base.params, arrays)]
        task = tasks.code_task(
            pipeline,
            base.params,
            examples,
            make_optimizer(config, name, len(examples.train.labels)),
            config,
        )
        keys = jnp.stack([_key_of(key, name, seed) for seed in range(config.seeds)])
        images, lost = examples.validation.images[:4], range(min(config.r, config.k))
        picture = inspection.drawer(pipeline, base.params, images, lost)
        settings = (task, base.params, arrays, folder, picture)
        fit_phase = lambda phase, key: run.fit(phase, key, *settings)
        return fit_seeds(task, keys, folder, name, fit_phase)

    tried = {"code": experiment.pipeline, **experiment.rivals}
    fitted = {name: train_code(name, pipeline) for name, pipeline in tried.items()}
    return Trained(base, tried, fitted)


def _constants(
    experiment: Experiment, name: str, pipeline: Pipeline, frozen: PyTree, arrays: dict
) -> Fitted:
    """A code that is not trained but computed, with a checkpoint as if by one step."""
    params = losses.constants(pipeline, frozen, arrays["images"])
    optimizer = make_optimizer(experiment.config, name, len(arrays["labels"]))
    state = initial_state(lambda key: params, optimizer, jax.random.key(0))
    folder = workdir.checkpoint_folder(experiment.folder, workdir.phase_of(name, 0))
    checkpoints.save(folder, 1, state)
    return Fitted(params, None, 1, 0.0)


def _key_of(key: jax.Array, name: str, seed: int) -> jax.Array:
    """Of one code's training with one seed; `key` is that of the whole run."""
    # Numbers of the first two phases, which had no names in their keys; any other code
    # keeps its key when codes are added.
    number = {"code": 1, "no_parity": 2}.get(name) or zlib.crc32(name.encode())
    key = jax.random.fold_in(key, number)
    return jax.random.fold_in(key, seed) if seed else key


def examples_of(experiment: Experiment) -> Dataset:
    """What the codes are trained and tried on: images, or groups of them."""
    dataset = experiment.dataset
    # Images are in random order, so the first ones are a random choice.
    few = slice(experiment.config.train_images)
    train = Split(dataset.train.images[few], dataset.train.labels[few])
    dataset = dataclasses.replace(dataset, train=train)
    return groups.inputs_of_dataset(experiment.pipeline, dataset)


class Evaluated(NamedTuple):
    """What was measured on the test split."""

    base_accuracy: float
    outcomes: dict[
        str, list[list[PatternAccuracy]]
    ]  # as `Trained.codes`, for every pattern
    confidence: dict[
        str, dict[str, Any]
    ]  # of each code, see `confidence.mean_over_seeds`


def evaluate(run: Run, trained: Trained) -> Evaluated:
    """Every pattern with the code and with each baseline, for every seed."""
    experiment, progress = run.experiment, run.progress
    config, frozen = experiment.config, trained.base.params
    patterns = erasures.patterns_up_to(config.n, config.most_tried)
    mesh = experiment.pipeline.mesh
    examples = examples_of(experiment)
    test = tasks.device_arrays(mesh, examples.test)
    validation = tasks.device_arrays(mesh, examples.validation)
    total = sum(map(len, trained.codes.values()))
    bar = add_row(progress, "evaluation", total)
    outcomes: dict[str, list[list[PatternAccuracy]]] = {
        name: [] for name in trained.codes
    }
    studied: dict[str, dict[str, Any]] = {}
    for name, seeds in trained.codes.items():
        studies = []
        for fitted in seeds:
            found, study = confidence.study(
                trained.pipelines[name],
                frozen,
                fitted.params,
                validation,
                test,
                patterns,
                config.stage_losses,
            )
            outcomes[name].append(found)
            studies.append(study)
            progress.advance(bar)
            if processes.any_process(run.stop()):
                raise Interrupted("stopped in the evaluation, all training is saved")
        studied[name] = confidence.mean_over_seeds(studies)
    accuracy = pattern_accuracy.base_accuracy(experiment.pipeline, frozen, test)
    return Evaluated(accuracy, outcomes, studied)
