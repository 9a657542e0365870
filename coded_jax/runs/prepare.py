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
from coded_jax.data import groups
from coded_jax.devices import placement, processes
from coded_jax.devices.meshes import make_mesh
from coded_jax.inference.pipeline import Examples, Pipeline
from coded_jax.runs import build, kept_base, provenance, workdir
from coded_jax.runs.config import Config
from coded_jax.runs.phases import BASE, CODE, regime_of
from coded_jax.runs.workdir import Places, open_workdir
from coded_jax.training import exact_targets
from coded_jax.types import BaseModel, Dataset, PyTree, Split


class Experiment(NamedTuple):
    """An experiment that has passed every check and is ready to run.

    Attributes:
      config: the settings.
      folder: the workdir; None for a run that keeps nothing.
      base_folder: the workdir that has the base model's checkpoints, likewise.
      dataset: of images, see `examples`.
      uncoded: the base model, image by image.
      pipelines: the coded inference with the code, as `"code"`, and each baseline.
      start: variables that the base model's training begins with; None for new ones.
      variables: of a base model that is trained already.
      fingerprints: of the functions, variables and data that no flag names.
      resumed: whether a former process has left checkpoints or measurements.
      started: `time.perf_counter()` when the checks began.
    """

    config: Config
    folder: Path | None
    base_folder: Path | None
    dataset: Dataset
    uncoded: Pipeline
    pipelines: dict[str, Pipeline]
    start: PyTree | None
    variables: PyTree | None
    fingerprints: dict[str, str]
    resumed: bool
    started: float

    @property
    def pipeline(self) -> Pipeline:
        """Returns the coded inference with the code."""
        return self.pipelines[CODE]

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
    dataset: Dataset | None = None,
    base: BaseModel | None = None,
    variables: PyTree | None = None,
) -> Experiment:
    """Checks everything that can be wrong, before any training.

    Args:
      config: the settings.
      places: where it runs.
      dataset: in place of the one that `config` names, or that where it is loaded.
      base, variables: a trained base model in place of the one that `config` names.

    Raises:
      ValueError, OSError, ImportError: one line that says what is wrong.
    """
    started = time.perf_counter()
    mesh = make_mesh(config.n, places.devices, places.mesh)
    dataset = dataset or data.load(config.dataset, places.data_dir, config.image_size)
    source = data.DATASETS.get(config.dataset)
    if source is not None and source.own_images:
        digest = provenance.of_data(dataset)
        fits = config.images_digest in (None, digest)
        accepted = f"none, or {digest} of the images that are in data_dir,"
        require("images_digest", config.images_digest, fits, accepted)
        config = dataclasses.replace(config, images_digest=digest)
    shape, classes = dataset.image_shape, dataset.classes
    examples = Examples(shape, dataset.mean, dataset.std, values=dataset.values)
    uncoded = build.uncoded_pipeline(config, examples, mesh, base)
    pipeline = build.build_pipeline(config, examples, classes, mesh, base)
    shapes = build.variable_shapes(pipeline.base, shape, classes)
    _require_data(config, dataset, uncoded.base, shapes)
    rivals = build.rival_pipelines(config, pipeline, shapes)
    if config.nonnegative or pipeline.nonnegative:
        # Where no ReLU ends a stage, random weights show it as well as trained ones.
        drawn = pipeline.base.init(jax.random.key(config.seed), shape, classes)
        images = dataset.train.images[: exact_targets.CHUNK]
        # Each process by itself: another one may have failed already.
        alone = pipeline._replace(mesh=None)
        exact_targets.require_nonnegative(alone, drawn, images)
    marks = {}
    if base:
        marks = provenance.of_network(base, variables, shape)
        marks["data"] = provenance.of_data(dataset)
    if callable(config.code):
        marks[CODE] = provenance.of_codes(pipeline, shapes)
    for name in {name_of(code) for code in config.baselines if callable(code)}:
        if name in rivals:
            marks[f"baseline_{name}"] = provenance.of_codes(rivals[name], shapes)
    folder, base_folder = places.folders
    folders = [f for f in (base_folder, folder) if f]
    start = kept_base.start_of(config, pipeline.base, dataset, folders)
    if base_folder and kept_base.is_kept(base_folder):
        kept_base.read(base_folder)  # it may be damaged
    begun = (workdir.CHECKPOINTS, workdir.MEASURED, workdir.MOMENTS)
    resumed = any((f / name).exists() for f in folders for name in begun)
    write = processes.is_lead()
    if folder and base_folder and base_folder != folder:
        base_places = places._replace(base_dir=None).to_flags()
        flags = config.base.to_flags()
        open_workdir(base_folder, flags, base_places, write=write, name="base_dir")
    if folder:
        of_user = {f"fingerprint_of_{name}": mark for name, mark in marks.items()}
        flags = config.to_flags() | of_user
        open_workdir(folder, flags, places.to_flags(), write=write)
    return Experiment(
        config=config,
        folder=folder,
        base_folder=base_folder,
        dataset=dataset,
        uncoded=uncoded,
        pipelines={CODE: pipeline, **rivals},
        start=start,
        variables=placement.put_replicated(mesh, variables) if base else None,
        fingerprints=marks,
        resumed=resumed,
        started=started,
    )


def _require_data(
    config: Config, dataset: Dataset, base: BaseModel, shapes: PyTree
) -> None:
    """Checks settings against the data set: the numbers of examples, the positions that
    have answers, and that no setting changes images without such labels."""
    images, name = len(dataset.train.labels), config.dataset
    used = config.train_images or images
    grouped = isinstance(config.splitting, GroupSplit)
    sizes = {
        "train_images": (used, images),
        "batch_size": (config.batch_size, -(-used // config.k) if grouped else used),
        "base_batch_size": (regime_of(config, BASE).batch_size, images),
    }
    for setting, (value, most) in sizes.items():
        require(setting, value, value <= most, f"1..{most} with the images of {name}")
    image = jax.ShapeDtypeStruct((1, *dataset.image_shape), "float32")
    features = jax.eval_shape(base.f_conv, shapes, image)
    positions = jax.eval_shape(base.head, shapes, features).shape[1:-1]
    for setting, excluded in (
        ("base_model", positions != dataset.positions),
        # Labels of positions would have to be changed like the images.
        ("augmentation", dataset.positions and config.augmentation != "none"),
        ("code_augmentation", dataset.positions and config.code_augmentation != "none"),
        ("split", dataset.positions and grouped),
        ("label_smoothing", dataset.values and config.label_smoothing > 0),
    ):
        accepted = f"another one, that fits the labels of {name},"
        require(setting, getattr(config, setting), not excluded, accepted)
