"""Training in a run: the base model, then every code around it, from checkpoints on."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from coded_jax.devices import processes
from coded_jax.evaluation import inspection, pattern_accuracy
from coded_jax.inference.pipeline import Pipeline
from coded_jax.runs import kept_base, workdir
from coded_jax.runs.logs import PhaseLog
from coded_jax.runs.prepare import Experiment
from coded_jax.runs.progress import LiveTable
from coded_jax.runs.regime import BASE, Regime, regime_of
from coded_jax.runs.seeds import fit_seeds
from coded_jax.training import checkpoints, exact_targets, tasks
from coded_jax.training.loop import FitConfig, Fitted, Task, fit
from coded_jax.training.steps import initial_state
from coded_jax.types import Dataset, PyTree


class Trained(NamedTuple):
    """The outcome of all training.

    Attributes:
      base: the base model.
      codes: the code, as `"code"`, and each baseline by name, for every seed.
    """

    base: Fitted
    codes: dict[str, list[Fitted]]

    @property
    def seconds(self) -> dict[str, float]:
        """Returns the seconds of training steps, of base model, code and baselines."""
        codes = {
            name: sum(fitted.seconds for fitted in seeds)
            for name, seeds in self.codes.items()
        }
        return {BASE: self.base.seconds, **codes}


class Run(NamedTuple):
    """A run that is shown and can be stopped.

    Attributes:
      experiment: what runs.
      progress: the table that shows it.
      stop: whether to save and end.
    """

    experiment: Experiment
    progress: LiveTable
    stop: Callable[[], bool]


class Phase(NamedTuple):
    """A training of a run.

    Attributes:
      task: the parameters and their loss.
      frozen: variables that the loss reads.
      arrays: training examples `[N, ...]`.
      regime: how long and by which steps.
      picture: `params -> uint8 [rows, columns, 3]`, drawn after every epoch.
    """

    task: Task
    frozen: PyTree
    arrays: dict[str, Any]
    regime: Regime
    picture: Callable[[PyTree], np.ndarray] | None = None

    def fit(self, run: Run, name: str, key: jax.Array, folder: Path) -> Fitted:
        """Trains, with the phase's checkpoints and log in `folder`.

        Args:
          run: shows the phase, and may stop it.
          name: of the phase, see `workdir.phase_of`.
          key: of all draws, or `[S]` for so many seeds; see `loop.fit`.
          folder: a workdir.
        """
        examples, regime = len(self.arrays["labels"]), self.regime
        directory = workdir.checkpoint_folder(folder, name)
        mesh = run.experiment.pipeline.mesh
        extent = FitConfig(
            regime.epochs, regime.batch_size, directory, mesh, regime.products
        )
        fit_observed = functools.partial(
            fit, self.task, self.frozen, self.arrays, key, extent, stop=run.stop
        )
        if not processes.is_lead():
            return fit_observed()
        with PhaseLog(
            folder,
            name,
            run.progress,
            steps=regime.steps(examples),
            batch_size=regime.batch_size,
            rate=regime.rate(examples),
            picture=self.picture,
        ) as log:
            return fit_observed(observer=log)


def train_base(run: Run) -> Fitted:
    """Trains the base model, in the folder that runs share if there is one."""
    experiment = run.experiment
    config, dataset, pipeline = (
        experiment.config,
        experiment.dataset,
        experiment.uncoded,
    )
    if experiment.variables is not None:
        validation = tasks.device_arrays(pipeline.mesh, dataset.validation)
        score = pattern_accuracy.base_accuracy(
            pipeline, experiment.variables, validation
        )
        return Fitted(experiment.variables, score, 0, 0.0)
    regime = regime_of(config, BASE)
    task = tasks.base_task(
        pipeline,
        dataset,
        regime.optimizer(len(dataset.train.labels)),
        config.augmentation,
        config.label_smoothing,
        kept_base.start_of(
            config, pipeline.base, dataset, (experiment.base_folder, experiment.folder)
        ),
    )
    arrays = tasks.device_arrays(pipeline.mesh, dataset.train)
    phase = Phase(task, {}, arrays, regime)
    key = jax.random.fold_in(jax.random.key(config.seed), 0)
    folder, base_folder = experiment.folder, experiment.base_folder
    if base_folder != folder:
        if kept_base.is_kept(base_folder):
            kept_base.take(base_folder, folder, config, len(dataset.train.labels))
        else:
            phase.fit(run, BASE, key, base_folder)
            if processes.is_lead():
                workdir.copy_checkpoints(base_folder, folder, BASE)
            processes.any_process(False)  # the others wait for the copy
    return phase.fit(run, BASE, key, folder)


def train(run: Run) -> Trained:
    """Trains everything; each phase goes on from its checkpoints."""
    experiment = run.experiment
    base = train_base(run)
    examples = experiment.examples
    # The same for every code: they differ in their parity pieces only.
    arrays = tasks.device_arrays(experiment.pipeline.mesh, examples.train)
    learns = any(pipeline.learns for pipeline in experiment.pipelines.values())
    if learns and experiment.config.code_augmentation == "none":
        arrays = exact_targets.with_targets(experiment.pipeline, base.params, arrays)
    inputs = (examples, arrays, base.params)
    codes = {name: train_code(run, name, *inputs) for name in experiment.pipelines}
    return Trained(base, codes)


def train_code(
    run: Run, name: str, examples: Dataset, arrays: dict[str, Any], frozen: PyTree
) -> list[Fitted]:
    """Trains a code with every seed; one without parameters is left as it is.

    Args:
      run: the run.
      name: `"code"`, or that of a baseline.
      examples: its validation part scores.
      arrays: training examples `[N, ...]`, perhaps with targets.
      frozen: variables of the base model.
    """
    experiment, config = run.experiment, run.experiment.config
    pipeline, key = experiment.pipelines[name], jax.random.key(config.seed)
    if not jax.tree.leaves(jax.eval_shape(pipeline.init, key)):
        return [Fitted(pipeline.init(key), None, 0, 0.0)]
    regime = regime_of(config, name)
    optimizer = regime.optimizer(len(examples.train.labels))
    if all(stage.code.constants for stage in pipeline.stages):
        params = exact_targets.constants(pipeline, frozen, arrays["images"])
        state = initial_state(lambda key: params, optimizer, jax.random.key(0))
        # With a checkpoint, as if by one step of training.
        phase_name = workdir.phase_of(name, 0)
        folder = workdir.checkpoint_folder(experiment.folder, phase_name)
        checkpoints.save(folder, 1, state)
        return [Fitted(params, None, 1, 0.0)]
    task = tasks.code_task(pipeline, frozen, examples, optimizer, config)
    phase = Phase(task, frozen, arrays, regime, _picture(pipeline, frozen, examples))
    keys = jnp.stack([key_of(key, name, seed) for seed in range(config.seeds)])
    fit_phase = lambda phase_name, key: phase.fit(
        run, phase_name, key, experiment.folder
    )
    return fit_seeds(task, keys, experiment.folder, name, fit_phase)


def _picture(
    pipeline: Pipeline, frozen: PyTree, examples: Dataset
) -> Callable[[PyTree], np.ndarray] | None:
    """Returns the drawing of four validation images, see `inspection.drawer`."""
    images, lost = examples.validation.images[:4], range(min(pipeline.r, pipeline.k))
    return inspection.drawer(pipeline, frozen, images, lost)


def key_of(key: jax.Array, name: str, seed: int) -> jax.Array:
    """Returns the key of one code's training with one seed.

    Args:
      key: of the whole run.
      name: of the code; its key stays the same when other codes are added.
      seed: from 0.
    """
    # The first two phases had no names in their keys once, but these numbers.
    number = {"code": 1, "no_parity": 2}.get(name) or zlib.crc32(name.encode())
    key = jax.random.fold_in(key, number)
    return jax.random.fold_in(key, seed) if seed else key
