"""Checks of an experiment before any training, and the record of one that passed."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import NamedTuple

import jax

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
from coded_jax.runs.phases import BASE, regime_of
from coded_jax.runs.workdir import (
    CHECKPOINTS,
    MEASURED,
    Places,
    absolute,
    open_workdir,
)
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
      folder: the workdir; None for a run that keeps nothing.
      dataset: of images, see `examples`.
      uncoded: the base model, image by image.
      pipeline: the coded inference.
      rivals: the same with each baseline in the place of the code, by name.
      base_folder: the workdir that has the base model's checkpoints, likewise.
      resumed: whether a former process has left checkpoints or measurements.
      started: `time.perf_counter()` when the checks began.
      variables: of a base model that is trained already.
      fingerprints: of the functions, variables and data that no flag names.
    """

    config: Config
    folder: Path | None
    dataset: Dataset
    uncoded: Pipeline
    pipeline: Pipeline
    rivals: dict[str, Pipeline]
    base_folder: Path | None
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
    source = data.DATASETS.get(config.dataset)
    if source is not None and source.own_images:
        digest = fingerprints.of_data(dataset)
        fits = config.images_digest in (None, digest)
        accepted = f"none, or {digest} of the images that are in data_dir,"
        require("images_digest", config.images_digest, fits, accepted)
        config = dataclasses.replace(config, images_digest=digest)
    _require_examples(config, len(dataset.train.labels))
    base, mean, std = own and own.base, dataset.mean, dataset.std
    uncoded = uncoded_pipeline(config, mean, std, mesh, base)
    uncoded = uncoded.with_values(dataset.values)
    shape, classes = dataset.image_shape, dataset.classes
    pipeline = build_pipeline(
        config, shape, classes, mean=mean, std=std, mesh=mesh, base=base
    ).with_values(dataset.values)
    shapes = variable_shapes(pipeline.base, shape, classes)
    _require_answers(config, dataset, uncoded.base, shapes)
    rivals = rival_pipelines(config, pipeline, shapes)
    if config.nonnegative or pipeline.nonnegative:
        # Where no ReLU ends a stage, random weights show it as well as trained ones.
        drawn = pipeline.base.init(jax.random.key(config.seed), shape, classes)
        images = dataset.train.images[: exact_targets.CHUNK]
        # Each process by itself: another one may have failed already.
        alone = pipeline._replace(mesh=None)
        exact_targets.require_nonnegative(alone, drawn, images)
    folder = None if places.workdir is None else absolute(places.workdir)
    base_folder = folder
    if places.base_dir is not None:
        base_folder = absolute(places.base_dir, "base_dir")
        accepted = "another folder than the workdir, or none,"
        require("base_dir", str(places.base_dir), base_folder != folder, accepted)
    kept_base.start_of(config, pipeline.base, dataset, (base_folder, folder))
    if base_folder and kept_base.is_kept(base_folder):
        kept_base.read(base_folder)
    marks = dict(own.fingerprints) if own else {}
    if callable(config.code):
        marks["code"] = fingerprints.of_codes(pipeline, shapes)
    for code in config.baselines:
        if callable(code) and (rival := rivals.get(name_of(code))):
            mark = fingerprints.of_codes(rival, shapes)
            marks[f"baseline_{name_of(code)}"] = mark
    if folder:
        _open_folders(config, places, marks)
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
            if f
        ),
        started=started,
        variables=placement.put_replicated(mesh, own.variables) if own else None,
        fingerprints=marks,
    )


def _require_examples(config: Config, images: int) -> None:
    """Checks numbers of training examples against the training split's images."""
    used = config.train_images or images
    of_data = f"the training images of {config.dataset},"
    fits = used <= images
    require("train_images", used, fits, f"1..{images}, {of_data}")
    grouped = isinstance(config.splitting, GroupSplit)
    examples, name = (-(-used // config.k), "groups") if grouped else (used, "images")
    accepted = f"1..{examples}, the training {name} of {config.dataset},"
    require("batch_size", config.batch_size, config.batch_size <= examples, accepted)
    size = regime_of(config, BASE).batch_size
    require("base_batch_size", size, size <= images, f"1..{images}, {of_data}")


def _require_answers(
    config: Config, dataset: Dataset, base: BaseModel, shapes: PyTree
) -> None:
    """Checks that the network answers at the positions of the labels, and that no
    setting changes images without such labels."""
    image = jax.ShapeDtypeStruct((1, *dataset.image_shape), "float32")
    features = jax.eval_shape(base.f_conv, shapes, image)
    positions = jax.eval_shape(base.head, shapes, features).shape[1:-1]
    fits = tuple(positions) == tuple(dataset.positions)
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


def _open_folders(config: Config, places: Places, marks: dict[str, str]) -> None:
    """Makes or takes up the workdir, and the folder that has the base model."""
    lead = processes.is_lead()
    if places.base_dir is not None:
        open_workdir(
            places.base_dir,
            config.base.to_flags(),
            places=places._replace(base_dir=None).to_flags(),
            write=lead,
            name="base_dir",
        )
    of_user = {f"fingerprint_of_{name}": mark for name, mark in marks.items()}
    open_workdir(
        places.workdir,
        config.to_flags() | of_user,
        places=places.to_flags(),
        kernels=lowering.convolutions() if jax.default_backend() == "cpu" else "",
        write=lead,
    )
