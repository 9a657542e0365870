"""One experiment from its configuration to `results.json`."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
from rich.console import Console

from coded_jax import (
    data,
    distributed,
    losses,
    phases,
    placement,
    results,
    workdir,
)
from coded_jax.build import (
    batch_size_of,
    build_pipeline,
    rival_pipelines,
    uncoded_pipeline,
)
from coded_jax.config import Config
from coded_jax.data import Dataset
from coded_jax.pipeline import Pipeline
from coded_jax.progress import LiveTable, live_table
from coded_jax.signals import stop_requests
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
    uncoded: Pipeline  # the base model, image by image
    pipeline: Pipeline
    rivals: dict[str, Pipeline]  # with each baseline
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
    dataset: Dataset | None = None,
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
      dataset: that `config` names, where it has been loaded before.

    Raises:
      ValueError, OSError, ImportError: one line that says what is wrong.
    """
    started = time.perf_counter()
    placed = placement.make_mesh(config.n, devices, mesh)
    dataset = own.dataset if own else dataset or data.load(config.dataset, data_dir)
    images = len(dataset.train.labels)
    if (few := config.train_images or images) > images:
        raise ValueError(
            f"train_images: {few} given, 1..{images} accepted, the training images of "
            f"{config.dataset}"
        )
    groups = -(-few // config.k) if config.split == "group" else few
    base_size = batch_size_of(config, "base")
    for name, size, most in (
        ("batch_size", config.batch_size, groups),
        ("base_batch_size", base_size, images),
    ):
        if size > most:
            raise ValueError(
                f"{name}: {size} given, 1..{most} accepted, the training "
                f"{'groups' if most < few else 'images'} of {config.dataset}"
            )
    settings = (dataset.mean, dataset.std, placed, own and own.base)
    uncoded = uncoded_pipeline(config, *settings)
    key, sizes = jax.random.key(config.seed), (dataset.image_shape, dataset.classes)
    pipeline = build_pipeline(config, *sizes, *settings)
    shapes = jax.eval_shape(lambda key: pipeline.base.init(key, *sizes), key)
    rivals = rival_pipelines(config, pipeline, shapes)
    if config.nonnegative:
        # Where no ReLU ends a stage, random weights show it as well as trained ones.
        random = pipeline.base.init(key, *sizes)
        images = dataset.train.images[: losses.CHUNK]
        losses.require_nonnegative(
            pipeline, *placement.put_everywhere(placed, (random, images))
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
        config,
        folder,
        dataset,
        uncoded,
        pipeline,
        rivals,
        base_folder,
        resumed,
        started,
        variables,
    )


@contextlib.contextmanager
def _showing(
    experiment: Experiment, console: Console | None, progress: LiveTable | None
) -> Iterator[phases.Run]:
    """Shows the phases in a table of their own, or in one that is shown already."""
    if not distributed.is_lead():
        console, progress = Console(file=io.StringIO()), None
    table = progress or live_table(console or Console(stderr=True))
    with stop_requests() as stop, contextlib.nullcontext() if progress else table:
        yield phases.Run(experiment, table, stop)


def train_base(experiment: Experiment) -> None:
    """Trains the base model alone; errors as of `run`."""
    with _showing(experiment, None, None) as steps:
        phases.train_base(steps)


def run(
    experiment: Experiment,
    *,
    console: Console | None = None,
    progress: LiveTable | None = None,
    command: str = "",
) -> dict[str, Any]:
    """Trains base model, code and baselines, tries every pattern, writes the results.

    Whatever a former run of the same experiment finished is taken from its checkpoints.

    Args:
      experiment: from `prepare`.
      console: where progress is shown; standard error if None.
      progress: of `progress.live_table` that is shown already.
      command: recorded in the results.

    Returns:
      The content of `results.json`.

    Raises:
      training.NonFiniteError, training.Interrupted: see `training.fit`.
      OSError: the workdir can no longer be written to.
    """
    with _showing(experiment, console, progress) as steps:
        trained = phases.train(steps)
        started = time.perf_counter()
        evaluated = phases.evaluate(steps, trained)
    ended = time.perf_counter()
    seconds = {**trained.seconds, "evaluation": ended - started}
    # The wall time of former processes is not known, but that of their steps is.
    known = sum(seconds.values()) if experiment.resumed else ended - experiment.started
    seconds["total"] = known
    found = results.content(experiment, trained, evaluated, seconds, command)
    if distributed.is_lead():
        workdir.write_results(experiment.folder, found)
    return found
