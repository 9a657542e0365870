"""Checks of an experiment before any training, and the record of one that passed."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import NamedTuple

import jax
from jax.sharding import Mesh

from coded_jax import data
from coded_jax.checks import require
from coded_jax.codes import GroupSplit, name_of
from coded_jax.cpu_kernels import lowering
from coded_jax.data import groups
from coded_jax.devices import placement, processes
from coded_jax.devices.meshes import make_mesh
from coded_jax.inference.pipeline import Pipeline
from coded_jax.runs import fingerprints, kept_base
from coded_jax.runs.build import (
    build_pipeline,
    rival_pipelines,
    uncoded_pipeline,
    variable_shapes,
)
from coded_jax.runs.config import Config
from coded_jax.runs.places import Places, absolute
from coded_jax.runs.regime import BASE, regime_of
from coded_jax.runs.workdir import CHECKPOINTS, MEASURED, RunFlags, open_workdir
from coded_jax.training import exact_targets
from coded_jax.types import BaseModel, Dataset, PyTree, Split


class Own(NamedTuple):
    """Data and a trained base model of the user's own, see `protect`."""

    dataset: Dataset
    base: BaseModel
    variables: PyTree
    fingerprints: dict[str, str]  # of functions, variables and data


class Experiment(NamedTuple):
    """An experiment that has passed every check and is ready to run.

    Attributes:
      config: the settings.
      folder: the workdir.
      dataset: of images, see `examples`.
      uncoded: the base model, image by image.
      pipeline: the coded inference.
      rivals: the same with each baseline in the place of the code, by name.
      base_folder: the workdir that has the base model's checkpoints.
      resumed: whether a former process has left checkpoints or measurements.
      started: `time.perf_counter()` when the checks began.
      variables: of a base model that is trained already.
      fingerprints: of the functions, variables and data that no flag names.
    """

    config: Config
    folder: Path
    dataset: Dataset
    uncoded: Pipeline
    pipeline: Pipeline
    rivals: dict[str, Pipeline]
    base_folder: Path
    resumed: bool
    started: float
    variables: PyTree | None = None
    fingerprints: dict[str, str] = {}

    @property
    def pipelines(self) -> dict[str, Pipeline]:
        """Returns the pipelines of the code, as `"code"`, and of each baseline."""
        return {"code": self.pipeline, **self.rivals}

    @property
    def examples(self) -> Dataset:
        """Returns the examples of the codes: images, or groups of images."""
        # Images are in random order, so the first ones are a random choice.
        few = slice(self.config.train_images)
        train = Split(self.dataset.train.images[few], self.dataset.train.labels[few])
        dataset = dataclasses.replace(self.dataset, train=train)
        return groups.inputs_of_dataset(self.pipeline, dataset)


def prepare(
    config: Config,
    places: Places,
    *,
    own: Own | None = None,
    dataset: Dataset | None = None,
) -> Experiment:
    """Checks everything that can be wrong, before any training.

    Args:
      config: the settings.
      places: where it runs.
      own: in place of the data set and the base model that `config` names.
      dataset: that `config` names, where it has been loaded before.

    Raises:
      ValueError, OSError, ImportError: one line that says what is wrong.
    """
    started = time.perf_counter()
    mesh = make_mesh(config.n, places.devices, places.mesh)
    if own:
        dataset = own.dataset
    dataset = dataset or data.load(config.dataset, places.data_dir, config.image_size)
    config = _with_digest(config, dataset)
    _check_sizes(config, len(dataset.train.labels))
    uncoded, pipeline = _pipelines(config, dataset, mesh, own)
    shapes = variable_shapes(pipeline.base, dataset.image_shape, dataset.classes)
    _check_positions(config, dataset, uncoded.base, shapes)
    rivals = rival_pipelines(config, pipeline, shapes)
    if config.nonnegative or pipeline.nonnegative:
        _check_nonnegative(config, pipeline, dataset)
    folders = (places.base_folder(), absolute(places.workdir))
    kept_base.start_of(config, pipeline.base, dataset, folders)
    if folders[0] and kept_base.is_kept(folders[0]):
        kept_base.read(folders[0])
    marks = dict(own.fingerprints) if own else {}
    if callable(config.code):
        marks["code"] = fingerprints.of_codes(pipeline, shapes)
    functions = {name_of(code) for code in config.baselines if callable(code)}
    for name, rival in rivals.items():
        if name in functions:
            marks[f"baseline_{name}"] = fingerprints.of_codes(rival, shapes)
    folder, base_folder = _open_folders(config, places, marks)
    variables = placement.put_replicated(mesh, own.variables) if own else None
    return Experiment(
        config=config,
        folder=folder,
        dataset=dataset,
        uncoded=uncoded,
        pipeline=pipeline,
        rivals=rivals,
        base_folder=base_folder,
        resumed=any(
            (f / name).exists()
            for f in (folder, base_folder)
            for name in (CHECKPOINTS, MEASURED)
        ),
        started=started,
        variables=variables,
        fingerprints=marks,
    )


def _with_digest(config: Config, dataset: Dataset) -> Config:
    """Adds the digest of images that are the user's own; checks one that is there."""
    source = data.DATASETS.get(config.dataset)
    if source is None or not source.own_images:
        return config
    digest = fingerprints.of_data(dataset)
    fits = config.images_digest in (None, digest)
    accepted = f"none, or {digest} of the images that are in data_dir,"
    require("images_digest", config.images_digest, fits, accepted)
    return dataclasses.replace(config, images_digest=digest)


def _check_sizes(config: Config, images: int) -> None:
    """Checks numbers of training examples against the training split's images."""
    used = config.train_images or images
    accepted = f"1..{images} accepted, the training images of {config.dataset}"
    if used > images:
        raise ValueError(f"train_images: {used} given, {accepted}")
    grouped = isinstance(config.splitting, GroupSplit)
    examples, name = (-(-used // config.k), "groups") if grouped else (used, "images")
    if config.batch_size > examples:
        raise ValueError(
            f"batch_size: {config.batch_size} given, 1..{examples} accepted, the "
            f"training {name} of {config.dataset}"
        )
    base_size = regime_of(config, BASE).batch_size
    if base_size > images:
        raise ValueError(f"base_batch_size: {base_size} given, {accepted}")


def _pipelines(
    config: Config, dataset: Dataset, mesh: Mesh | None, own: Own | None
) -> tuple[Pipeline, Pipeline]:
    """Returns the base model alone, and the coded inference."""
    settings = (dataset.mean, dataset.std, mesh, own and own.base)
    sizes = (dataset.image_shape, dataset.classes)
    pipelines = (
        uncoded_pipeline(config, *settings),
        build_pipeline(config, *sizes, *settings),
    )
    uncoded, coded = (x._replace(values=dataset.values) for x in pipelines)
    return uncoded, coded


def _check_positions(
    config: Config, dataset: Dataset, base: BaseModel, shapes: PyTree
) -> None:
    """Checks that the network answers at the positions of the labels.

    Raises:
      ValueError: it does not, or a setting changes images without their labels.
    """
    image = jax.ShapeDtypeStruct((1, *dataset.image_shape), "float32")
    features = jax.eval_shape(base.f_conv, shapes, image)
    answers = jax.eval_shape(base.head, shapes, features).shape[1:-1]
    fits = tuple(answers) == tuple(dataset.positions)
    kind = "for each position" if dataset.positions else "for each image"
    accepted = f"one with an answer {kind} of {config.dataset}"
    require("base_model", config.base_model, fits, accepted)
    if dataset.positions:
        accepted = f"none with {config.dataset}, whose labels have positions,"
        for name in ("augmentation", "code_augmentation"):
            value = getattr(config, name)
            require(name, value, value == "none", accepted)
        fits = not isinstance(config.splitting, GroupSplit)
        require("split", config.split, fits, "image or convolution")
    if dataset.values:
        smoothing = config.label_smoothing
        accepted = f"0 with {config.dataset}, whose labels are values,"
        require("label_smoothing", smoothing, smoothing == 0, accepted)


def _check_nonnegative(config: Config, pipeline: Pipeline, dataset: Dataset) -> None:
    """Checks that no coded stage puts out negative values."""
    # Where no ReLU ends a stage, random weights show it as well as trained ones.
    key = jax.random.key(config.seed)
    variables = pipeline.base.init(key, dataset.image_shape, dataset.classes)
    images = dataset.train.images[: exact_targets.CHUNK]
    # Each process by itself: another one may have failed already.
    exact_targets.require_nonnegative(pipeline._replace(mesh=None), variables, images)


def _open_folders(
    config: Config, places: Places, marks: dict[str, str]
) -> tuple[Path, Path]:
    """Returns the workdir, and the one that has the base model's checkpoints."""
    lead, defaults = processes.is_lead(), Config().to_flags()
    base_folder = places.base_folder()
    if base_folder is not None:
        elsewhere = places._replace(base_dir=None).to_flags()
        base_flags = RunFlags(config.base.to_flags(), elsewhere, defaults)
        open_workdir(base_folder, base_flags, write=lead, name="base_dir")
    of_user = {f"fingerprint_of_{name}": mark for name, mark in marks.items()}
    fixed = config.to_flags() | of_user
    kernels = lowering.convolutions() if jax.default_backend() == "cpu" else ""
    flags = RunFlags(fixed, places.to_flags(), defaults, kernels)
    folder = open_workdir(places.workdir, flags, write=lead)
    return folder, base_folder or folder
