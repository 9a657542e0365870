"""One experiment from its configuration to `results.json`."""

from __future__ import annotations

import dataclasses
import os
import platform
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
from rich.console import Console

from coded_jax import codes, data, erasures, evaluation, splitting, tasks, workdir
from coded_jax.config import Config
from coded_jax.data import Dataset
from coded_jax.logs import PhaseLog, progress_bars
from coded_jax.models import make_base_model
from coded_jax.pipeline import Pipeline
from coded_jax.training import Fitted, Task, fit, total_steps
from coded_jax.types import Code, CodeShape, PyTree

PHASES = ("base", "code", "no_parity")
"""What is trained, in this order; the names of the folders under `checkpoints/`."""


def build_pipeline(
    config: Config,
    image_shape: tuple[int, int, int],
    classes: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> Pipeline:
    """The coded inference that `config` describes.

    Raises:
      ValueError: the base model cannot be split into that many pieces.
    """
    base = make_base_model(config.base_model)
    key = jax.ShapeDtypeStruct((), jax.random.key(0).dtype)
    variables = jax.eval_shape(lambda key: base.init(key, image_shape, classes), key)
    plan = splitting.make_plan(base.f_conv, variables, image_shape, config.pieces)
    code = codes.learned_code(
        CodeShape(config.k, config.r, plan.piece_shape, plan.share_shape),
        encoder=config.encoder,
        decoder=config.decoder,
        encoder_width=config.encoder_width,
        decoder_width=config.decoder_width,
        dilations=config.dilations,
        decoder_channels=config.decoder_channels,
        systematic=config.recipe == "systematic",
    )
    return Pipeline(base, plan, code, mean, std, config.r)


class Experiment(NamedTuple):
    """An experiment that has passed every check and is ready to run."""

    config: Config
    folder: Path
    dataset: Dataset
    pipeline: Pipeline
    resumed: bool  # whether a former process has left checkpoints
    started: float  # `time.perf_counter()` when the checks began

    def with_code(self, code: Code) -> Pipeline:
        return self.pipeline._replace(code=code)


def prepare(
    config: Config, path: str | os.PathLike, data_dir: str | None = None
) -> Experiment:
    """Checks everything that can be wrong, before any training.

    Args:
      config: the settings.
      path: the workdir.
      data_dir: the TFDS folder; see `data.load`.

    Raises:
      ValueError, OSError, ImportError: one line that says what is wrong.
    """
    started = time.perf_counter()
    data.check(config.dataset, data_dir)
    dataset = data.load(config.dataset, data_dir)
    examples = len(dataset.train.labels)
    if config.batch_size > examples:
        raise ValueError(
            f"batch_size: {config.batch_size} given, 1..{examples} accepted, the "
            f"training examples of {config.dataset}"
        )
    pipeline = build_pipeline(
        config, dataset.image_shape, dataset.classes, dataset.mean, dataset.std
    )
    folder = workdir.open_workdir(path, config.to_flags(), data_dir)
    resumed = (folder / workdir.CHECKPOINTS).exists()
    return Experiment(config, folder, dataset, pipeline, resumed, started)


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
    """
    config, dataset, pipeline = (
        experiment.config,
        experiment.dataset,
        experiment.pipeline,
    )
    console = console or Console(stderr=True)
    shape = CodeShape(
        config.k, config.r, pipeline.plan.piece_shape, pipeline.plan.share_shape
    )
    patterns = erasures.patterns_up_to(config.n, config.r)
    arrays = tasks.device_arrays(dataset.train)
    key = jax.random.key(config.seed)

    with progress_bars(console) as progress:

        def train(phase: str, task: Task, frozen: PyTree, epochs: float) -> Fitted:
            steps = total_steps(len(dataset.train.labels), config.batch_size, epochs)
            with PhaseLog(experiment.folder, phase, steps, progress) as log:
                return fit(
                    task,
                    frozen,
                    arrays,
                    key=jax.random.fold_in(key, PHASES.index(phase)),
                    epochs=epochs,
                    batch_size=config.batch_size,
                    directory=checkpoint_folder(experiment.folder, phase),
                    observer=log,
                )

        optimizer = make_optimizer(config, "base", len(dataset.train.labels))
        base_task = tasks.base_task(pipeline, dataset, optimizer)
        base = train("base", base_task, {}, config.base_epochs)

        def train_code(phase: str, code: Code) -> Fitted:
            task = tasks.code_task(
                experiment.with_code(code),
                base.params,
                dataset,
                make_optimizer(config, phase, len(dataset.train.labels)),
                config.most_lost,
                patterns,
            )
            return train(phase, task, base.params, config.epochs)

        no_parity = codes.no_parity(shape, pipeline.code)
        code_fit = train_code("code", pipeline.code)
        no_parity_fit = train_code("no_parity", no_parity)

        evaluation_started = time.perf_counter()
        test = tasks.device_arrays(dataset.test)
        tried = {
            "code": (pipeline.code, code_fit.params),
            "zero_fill": (codes.zero_fill(shape), {}),
            "no_parity": (no_parity, no_parity_fit.params),
        }
        bar = progress.add_task("evaluation", total=len(tried), note="")
        outcomes = {}
        for name, (code, params) in tried.items():
            outcomes[name] = evaluation.evaluate(
                experiment.with_code(code), base.params, params, test, patterns
            )
            progress.advance(bar)
        base_accuracy = evaluation.base_accuracy(pipeline, base.params, test)
        evaluation_seconds = time.perf_counter() - evaluation_started

    seconds = {
        "base": base.seconds,
        "code": code_fit.seconds,
        "no_parity": no_parity_fit.seconds,
        "evaluation": evaluation_seconds,
        "total": time.perf_counter() - experiment.started,
    }
    plan = pipeline.plan
    results = {
        "config": dataclasses.asdict(config),
        "command": command,
        "versions": {"python": platform.python_version(), **workdir.versions()},
        "machine": {
            "device": jax.devices()[0].device_kind,
            "cores": os.cpu_count(),
        },
        "seed": config.seed,
        "steps": {"base": base.steps, "code": code_fit.steps},
        "dataset": config.dataset,
        "image_shape": dataset.image_shape,
        "classes": dataset.classes,
        "normalisation": {"mean": dataset.mean, "std": dataset.std},
        "base": {"test_accuracy": base_accuracy, "validation_accuracy": base.score},
        "code": {"validation_accuracy": code_fit.score},
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
            name: evaluation.summarise(outcomes[name])
            for name in ("zero_fill", "no_parity")
        },
        "timing": {
            "resumed": experiment.resumed,
            "train_images_per_second": (
                code_fit.steps * config.batch_size / code_fit.seconds
            ),
            "seconds": {name: round(s, 2) for name, s in seconds.items()},
        },
    }
    workdir.write_results(experiment.folder, results)
    return results


def checkpoint_folder(folder: Path, phase: str) -> Path:
    """Where the checkpoints of one of `PHASES` lie."""
    return folder / workdir.CHECKPOINTS / phase


def make_optimizer(config: Config, phase: str, examples: int) -> Any:
    """Adam with L2; cosine decay for the base model and the systematic recipe."""
    epochs = config.base_epochs if phase == "base" else config.epochs
    decays = phase == "base" or config.recipe == "systematic"
    steps = total_steps(examples, config.batch_size, epochs)
    return tasks.adam(
        config.learning_rate, config.weight_decay, steps if decays else None
    )
