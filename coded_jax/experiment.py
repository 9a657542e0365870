"""One experiment from its configuration to `results.json`."""

from __future__ import annotations

import dataclasses
import io
import os
import platform
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
    placement,
    tasks,
    workdir,
)
from coded_jax.build import PHASES, build_pipeline, epochs_of, make_optimizer
from coded_jax.config import Config
from coded_jax.data import Dataset
from coded_jax.evaluation import Outcome
from coded_jax.logs import phase_log, progress_bars
from coded_jax.pipeline import Pipeline
from coded_jax.signals import stop_requests
from coded_jax.training import Fitted, Interrupted, Task, fit, total_steps
from coded_jax.types import Code, CodeShape, PyTree


class Experiment(NamedTuple):
    """An experiment that has passed every check and is ready to run."""

    config: Config
    folder: Path
    dataset: Dataset
    pipeline: Pipeline
    resumed: bool  # whether a former process has left checkpoints
    started: float  # `time.perf_counter()` when the checks began

    @property
    def shape(self) -> CodeShape:
        """The sizes of its code."""
        plan = self.pipeline.plan
        return CodeShape(plan.k, self.config.r, plan.piece_shape, plan.share_shape)

    def with_code(self, code: Code) -> Pipeline:
        """Its pipeline, around another code."""
        return self.pipeline._replace(code=code)


def prepare(
    config: Config,
    path: str | os.PathLike,
    data_dir: str | None = None,
    devices: int | None = None,
    mesh: tuple[int, int] | None = None,
) -> Experiment:
    """Checks everything that can be wrong, before any training.

    Args:
      config: the settings.
      path: the workdir.
      data_dir: the TFDS folder; see `data.load`.
      devices, mesh: where it runs; see `placement.make_mesh`. A run may be resumed
        elsewhere.

    Raises:
      ValueError, OSError, ImportError: one line that says what is wrong.
    """
    started = time.perf_counter()
    placed = placement.make_mesh(config.n, devices, mesh)
    dataset = data.load(config.dataset, data_dir)
    examples = len(dataset.train.labels)
    if config.batch_size > examples:
        raise ValueError(
            f"batch_size: {config.batch_size} given, 1..{examples} accepted, the "
            f"training examples of {config.dataset}"
        )
    pipeline = build_pipeline(
        config,
        dataset.image_shape,
        dataset.classes,
        dataset.mean,
        dataset.std,
        placed,
    )
    places = {
        "data_dir": data_dir and str(Path(data_dir).expanduser().absolute()),
        "devices": devices,
        "mesh": mesh and f"{mesh[0]}x{mesh[1]}",
    }
    folder = workdir.open_workdir(
        path,
        config.to_flags(),
        {name: str(value) for name, value in places.items() if value is not None},
        defaults=Config().to_flags(),
        write=distributed.is_lead(),
    )
    resumed = (folder / workdir.CHECKPOINTS).exists()
    return Experiment(config, folder, dataset, pipeline, resumed, started)


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
    results = _results(experiment, trained, base_accuracy, outcomes, seconds, command)
    if distributed.is_lead():
        workdir.write_results(experiment.folder, results)
    return results


def _train(
    experiment: Experiment, progress: Progress, stop: Callable[[], bool]
) -> Trained:
    config, dataset = experiment.config, experiment.dataset
    examples = len(dataset.train.labels)
    mesh = experiment.pipeline.mesh
    arrays = tasks.device_arrays(mesh, dataset.train)
    patterns = erasures.patterns_up_to(config.n, config.r)
    key = jax.random.key(config.seed)

    def train(phase: str, task: Task, frozen: PyTree, arrays: dict) -> Fitted:
        epochs = epochs_of(config, phase)
        steps = total_steps(examples, config.batch_size, epochs)
        with phase_log(experiment.folder, phase, steps, progress) as log:
            return fit(
                task,
                frozen,
                arrays,
                key=jax.random.fold_in(key, PHASES.index(phase)),
                epochs=epochs,
                batch_size=config.batch_size,
                directory=workdir.checkpoint_folder(experiment.folder, phase),
                observer=log,
                stop=stop,
                mesh=mesh,
            )

    optimizer = make_optimizer(config, "base", examples)
    base_task = tasks.base_task(experiment.pipeline, dataset, optimizer)
    base = train("base", base_task, {}, arrays)
    # The same for every code: they differ in their parity pieces only.
    arrays = tasks.with_features(experiment.pipeline, base.params, arrays)

    def train_code(phase: str, code: Code) -> Fitted:
        task = tasks.code_task(
            experiment.with_code(code),
            base.params,
            dataset,
            make_optimizer(config, phase, examples),
            config.most_lost,
            patterns,
        )
        return train(phase, task, base.params, arrays)

    code = experiment.pipeline.code
    return Trained(
        base,
        train_code("code", code),
        train_code("no_parity", codes.no_parity(experiment.shape, code)),
    )


def _evaluate(
    experiment: Experiment,
    trained: Trained,
    progress: Progress,
    stop: Callable[[], bool],
) -> tuple[float, dict[str, list[Outcome]]]:
    """Test accuracy of the base model, and the outcomes of the code and baselines."""
    code, shape, frozen = (
        experiment.pipeline.code,
        experiment.shape,
        trained.base.params,
    )
    patterns = erasures.patterns_up_to(shape.n, shape.r)
    test = tasks.device_arrays(experiment.pipeline.mesh, experiment.dataset.test)
    tried = {
        "code": (code, trained.code.params),
        "zero_fill": (codes.zero_fill(shape), {}),
        "no_parity": (codes.no_parity(shape, code), trained.no_parity.params),
    }
    bar = progress.add_task("evaluation", total=len(tried), note="")
    outcomes = {}
    for name, (code, params) in tried.items():
        pipeline = experiment.with_code(code)
        outcomes[name] = evaluation.evaluate(pipeline, frozen, params, test, patterns)
        progress.advance(bar)
        if distributed.any_process(stop()):
            raise Interrupted("stopped in the evaluation, all training is saved")
    return evaluation.base_accuracy(experiment.pipeline, frozen, test), outcomes


def _results(
    experiment: Experiment,
    trained: Trained,
    base_accuracy: float,
    outcomes: dict[str, list[Outcome]],
    seconds: dict[str, float],
    command: str,
) -> dict[str, Any]:
    config, dataset = experiment.config, experiment.dataset
    plan, mesh = experiment.pipeline.plan, experiment.pipeline.mesh
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
            "grid": plan.grid,
            "piece_shape": plan.piece_shape,
            "work_fraction": round(plan.work_fraction, 4),
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
