"""One experiment from its configuration to `results.json`."""

from __future__ import annotations

import functools
import io
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
from rich.console import Console
from rich.progress import Progress

from coded_jax import (
    codes,
    data,
    distributed,
    erasures,
    evaluation,
    losses,
    placement,
    results,
    tasks,
    workdir,
)
from coded_jax.build import (
    PHASES,
    batch_size_of,
    build_pipeline,
    epochs_of,
    make_optimizer,
)
from coded_jax.config import Config
from coded_jax.data import Dataset
from coded_jax.evaluation import Outcome
from coded_jax.logs import phase_log, progress_bars
from coded_jax.pipeline import Pipeline
from coded_jax.signals import stop_requests
from coded_jax.training import Fitted, Interrupted, Task, fit, total_steps
from coded_jax.types import BaseModel, PyTree


class Own(NamedTuple):
    """Data and a trained base model of the user's own, see `own.protect`."""

    dataset: Dataset
    base: BaseModel
    variables: PyTree
    fingerprint: str  # of the functions, the variables and the data


class Experiment(NamedTuple):
    """An experiment that has passed every check and is ready to run."""

    config: Config
    folder: Path
    dataset: Dataset
    pipeline: Pipeline
    base_folder: Path  # of the base model's checkpoints
    resumed: bool  # whether a former process has left checkpoints
    started: float  # `time.perf_counter()` when the checks began
    variables: PyTree | None = None  # of a base model that is trained already


def prepare(
    config: Config,
    path: str | os.PathLike,
    data_dir: str | None = None,
    devices: int | None = None,
    mesh: tuple[int, int] | None = None,
    base_dir: str | os.PathLike | None = None,
    own: Own | None = None,
) -> Experiment:
    """Checks everything that can be wrong, before any training.

    Args:
      config: the settings.
      path: the workdir.
      data_dir: the TFDS folder; see `data.load`.
      devices, mesh: where it runs; see `placement.make_mesh`. A run may be resumed
        elsewhere.
      base_dir: where the base model is trained, or taken from if it has been: runs with
        the same base model share it. The workdir if None.
      own: in place of the data set and the base model that `config` names.

    Raises:
      ValueError, OSError, ImportError: one line that says what is wrong.
    """
    started = time.perf_counter()
    placed = placement.make_mesh(config.n, devices, mesh)
    dataset = own.dataset if own else data.load(config.dataset, data_dir)
    examples = len(dataset.train.labels)
    for name in ("batch_size", "base_batch_size"):
        size = getattr(config, name)
        if size is not None and size > examples:
            raise ValueError(
                f"{name}: {size} given, 1..{examples} accepted, the training examples "
                f"of {config.dataset}"
            )
    pipeline = build_pipeline(
        config,
        dataset.image_shape,
        dataset.classes,
        dataset.mean,
        dataset.std,
        placed,
        own and own.base,
    )
    places = {
        "data_dir": data_dir and str(Path(data_dir).expanduser().absolute()),
        "devices": devices,
        "mesh": mesh and f"{mesh[0]}x{mesh[1]}",
    }
    given = {name: str(value) for name, value in places.items() if value is not None}
    defaults, lead = Config().to_flags(), distributed.is_lead()
    settings = config.to_flags()
    if own:
        settings["fingerprint"] = own.fingerprint
    open_dir = functools.partial(
        workdir.open_workdir, places=given, defaults=defaults, write=lead
    )
    base_folder = None
    if base_dir is not None:
        if workdir.absolute(base_dir, "base_dir") == workdir.absolute(path):
            raise ValueError(
                f"base_dir: {os.fspath(base_dir)!r} given, another folder than the "
                "workdir accepted, or none"
            )
        base_flags = config.base.to_flags()
        base_folder = open_dir(base_dir, base_flags, name="base_dir")
        given = {**given, "base_dir": str(base_folder)}
    folder = open_dir(path, settings, places=given)
    base_folder = base_folder or folder
    resumed = any((f / workdir.CHECKPOINTS).exists() for f in (folder, base_folder))
    variables = placement.put_everywhere(placed, own.variables) if own else None
    return Experiment(
        config, folder, dataset, pipeline, base_folder, resumed, started, variables
    )


class Trained(NamedTuple):
    """The outcomes of `PHASES`."""

    base: Fitted
    code: Fitted
    no_parity: Fitted


def run(
    experiment: Experiment, *, console: Console | None = None, command: str = ""
) -> dict[str, Any]:
    """Trains base model, code and baseline, tries every pattern, writes the results.

    Whatever a former run of the same experiment finished is taken from its checkpoints.

    Args:
      experiment: from `prepare`.
      console: where progress is shown; standard error if None.
      command: recorded in the results.

    Returns:
      The content of `results.json`.

    Raises:
      training.NonFiniteError, training.Interrupted: see `training.fit`.
      OSError: the workdir can no longer be written to.
    """
    if not distributed.is_lead():
        console = Console(file=io.StringIO())
    bars = progress_bars(console or Console(stderr=True))
    with stop_requests() as stop, bars as progress:
        trained = _train(experiment, progress, stop)
        started = time.perf_counter()
        base_accuracy, outcomes = _evaluate(experiment, trained, progress, stop)
    ended = time.perf_counter()
    seconds = {name: fitted.seconds for name, fitted in trained._asdict().items()}
    seconds["evaluation"] = ended - started
    # The wall time of former processes is not known, but that of their steps is.
    known = sum(seconds.values()) if experiment.resumed else ended - experiment.started
    seconds["total"] = known
    found = results.content(
        experiment, trained, base_accuracy, outcomes, seconds, command
    )
    if distributed.is_lead():
        workdir.write_results(experiment.folder, found)
    return found


def _train(
    experiment: Experiment, progress: Progress, stop: Callable[[], bool]
) -> Trained:
    """All phases; each takes up what its checkpoints hold."""
    config, dataset = experiment.config, experiment.dataset
    examples = len(dataset.train.labels)
    mesh = experiment.pipeline.mesh
    arrays = tasks.device_arrays(mesh, dataset.train)
    patterns = erasures.patterns_up_to(config.n, config.r)
    key = jax.random.key(config.seed)

    def train_phase(
        phase: str, task: Task, frozen: PyTree, arrays: dict, folder: Path
    ) -> Fitted:
        epochs, batch_size = epochs_of(config, phase), batch_size_of(config, phase)
        steps = total_steps(examples, batch_size, epochs)
        with phase_log(folder, phase, steps, progress) as log:
            return fit(
                task,
                frozen,
                arrays,
                key=jax.random.fold_in(key, PHASES.index(phase)),
                epochs=epochs,
                batch_size=batch_size,
                directory=workdir.checkpoint_folder(folder, phase),
                observer=log,
                stop=stop,
                mesh=mesh,
            )

    pipeline, folder = experiment.pipeline, experiment.folder

    def train_base() -> Fitted:
        if experiment.variables is not None:
            validation = tasks.device_arrays(mesh, dataset.validation)
            score = evaluation.base_accuracy(pipeline, experiment.variables, validation)
            return Fitted(experiment.variables, score, 0, 0.0)
        optimizer = make_optimizer(config, "base", examples)
        task = tasks.base_task(
            pipeline, dataset, optimizer, config.augmentation, config.label_smoothing
        )
        if experiment.base_folder != folder:
            train_phase("base", task, {}, arrays, experiment.base_folder)
            if distributed.is_lead():
                workdir.copy_checkpoints(experiment.base_folder, folder, "base")
            distributed.any_process(False)  # the others wait for the copy
        return train_phase("base", task, {}, arrays, folder)

    base = train_base()
    # The same for every code: they differ in their parity pieces only.
    arrays = losses.with_targets(pipeline, base.params, arrays)

    def train_code(phase: str, pipeline: Pipeline) -> Fitted:
        task = tasks.code_task(
            pipeline,
            base.params,
            dataset,
            make_optimizer(config, phase, examples),
            config.most_lost,
            patterns,
            config.stage_training,
            config.stage_losses,
        )
        return train_phase(phase, task, base.params, arrays, folder)

    return Trained(
        base,
        train_code("code", pipeline),
        train_code("no_parity", pipeline.with_codes(codes.no_parity)),
    )


def _evaluate(
    experiment: Experiment,
    trained: Trained,
    progress: Progress,
    stop: Callable[[], bool],
) -> tuple[float, dict[str, list[Outcome]]]:
    """Test accuracy of the base model, and the outcomes of the code and baselines."""
    pipeline, frozen = experiment.pipeline, trained.base.params
    patterns = erasures.patterns_up_to(pipeline.n, pipeline.r)
    test = tasks.device_arrays(pipeline.mesh, experiment.dataset.test)
    nothing = tuple({} for _ in pipeline.codings)
    tried = {
        "code": (pipeline, trained.code.params),
        "zero_fill": (pipeline.with_codes(codes.zero_fill), nothing),
        "no_parity": (pipeline.with_codes(codes.no_parity), trained.no_parity.params),
    }
    bar = progress.add_task("evaluation", total=len(tried), note="")
    outcomes = {}
    for name, (coded, params) in tried.items():
        outcomes[name] = evaluation.evaluate(
            coded, frozen, params, test, patterns, experiment.config.stage_losses
        )
        progress.advance(bar)
        if distributed.any_process(stop()):
            raise Interrupted("stopped in the evaluation, all training is saved")
    return evaluation.base_accuracy(pipeline, frozen, test), outcomes
