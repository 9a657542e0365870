"""An experiment that has passed every check, before any training."""

from __future__ import annotations

import functools
import os
import time
from pathlib import Path
from typing import NamedTuple

import jax

from coded_jax import data
from coded_jax.devices import placement, processes
from coded_jax.devices.meshes import make_mesh
from coded_jax.inference.pipeline import Pipeline
from coded_jax.runs import workdir
from coded_jax.runs.build import (
    batch_size_of,
    build_pipeline,
    rival_pipelines,
    uncoded_pipeline,
)
from coded_jax.runs.config import Config
from coded_jax.training import losses
from coded_jax.types import BaseModel, Dataset, PyTree


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
      devices, mesh: where it runs; see `make_mesh`. A run may be resumed
        elsewhere.
      base_dir: where the base model is trained, or taken from if it has been: runs with
        the same base model share it. The workdir if None.
      own: in place of the data set and the base model that `config` names.
      dataset: that `config` names, where it has been loaded before.

    Raises:
      ValueError, OSError, ImportError: one line that says what is wrong.
    """
    started = time.perf_counter()
    placed = make_mesh(config.n, devices, mesh)
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
            pipeline, *placement.put_replicated(placed, (random, images))
        )
    places = {
        "data_dir": data_dir and str(Path(data_dir).expanduser().absolute()),
        "devices": devices,
        "mesh": mesh and f"{mesh[0]}x{mesh[1]}",
    }
    given = {name: str(value) for name, value in places.items() if value is not None}
    defaults, lead = Config().to_flags(), processes.is_lead()
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
    variables = placement.put_replicated(placed, own.variables) if own else None
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
