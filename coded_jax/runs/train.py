"""Trains the codes of a pipeline, in memory or in a folder that it can go on from."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from coded_jax import settings
from coded_jax.checks import require
from coded_jax.data import groups
from coded_jax.data.user_data import collect, require_dataset
from coded_jax.devices import placement
from coded_jax.inference.pipeline import Pipeline
from coded_jax.runs import provenance, workdir
from coded_jax.runs.build import as_arrays
from coded_jax.runs.coded_model import CodedModel
from coded_jax.runs.phases import train_code, training_arrays, watching
from coded_jax.training import exact_targets
from coded_jax.training.config import TrainConfig, require_patterns
from coded_jax.types import Dataset, PyTree, Split


def train(
    pipeline: Pipeline,
    variables: PyTree,
    data: Dataset | Split | tuple[Any, Any] | Iterable[tuple[Any, Any]],
    config: TrainConfig | None = None,
    *,
    workdir: str | os.PathLike | None = None,
    console: Console | None = None,
) -> CodedModel:
    """Trains the codes of a pipeline around a base model that stays as it is.

    Args:
      pipeline: from `make_pipeline`, or that of a loaded model.
      variables: of the base model.
      data: a data set, whose validation part chooses the epoch; or images with labels,
        or an iterator of such batches, which is read once and kept in memory: these
        choose the epoch themselves.
      config: how; `TrainConfig()` if None. The learning rate is as the pipeline's
        recipe says, see `phases.code_regime`.
      workdir: folder for checkpoints and metrics: killed, the same call goes on from
        there. If None, no file is written.
      console: where progress is shown; standard error if None.

    Returns:
      The coded model, without `results`; `evaluate` tries it.

    Raises:
      ValueError: data are not sound, fewer than a batch, or have other statistics than
        the pipeline; features are negative, or erasure patterns cannot occur, with its
        code; or the folder is that of another training.
      training.loop.NonFiniteError, training.loop.Interrupted: see `training.loop.fit`.
    """
    config = config or TrainConfig()
    require_patterns(config, pipeline.k, pipeline.r)
    require("seeds", config.seeds, config.seeds == 1, "1")
    if pipeline.tail_copy:
        accepted = "a TrainConfig with supervision or distillation for the tail's copy"
        require("config", config, bool(config.ends_weights), accepted)
    frozen = placement.put_replicated(pipeline.mesh, as_arrays(variables))
    model = CodedModel(pipeline, frozen, None)
    dataset = _dataset(data, model, config)
    examples = pipeline.examples._replace(values=dataset.values)
    pipeline = pipeline._replace(examples=examples)
    inputs = groups.inputs_of_dataset(pipeline, dataset)
    total, size = len(inputs.train.labels), config.batch_size
    require("batch_size", size, size <= total, f"1..{total}, the training inputs,")
    arrays = training_arrays(pipeline, frozen, inputs, config, pipeline.learns)
    if pipeline.nonnegative:
        exact_targets.require_nonnegative(pipeline, frozen, arrays["images"])
    folder = None if workdir is None else _open(workdir, model, dataset, config)
    with watching(folder, console) as watch:
        (fitted,) = train_code(pipeline, frozen, inputs, config, watch, arrays=arrays)
    return CodedModel(pipeline, frozen, fitted.params)


def _dataset(data: Any, model: CodedModel, config: TrainConfig) -> Dataset:
    """Returns a checked data set; of one part alone, all parts are that one."""
    *places, classes = model.answer_shape
    examples = model.pipeline.examples
    if not isinstance(data, Dataset):
        split = collect(data)
        statistics = {"mean": examples.mean, "std": examples.std}
        data = Dataset("own", classes, split, split, split, **statistics)
    dataset = require_dataset(data)
    model.check_images(dataset.train.images[: model.pipeline.images_per_input])
    float32 = lambda numbers: None if numbers is None else np.float32(numbers).tolist()
    for name, value, own in (
        ("classes", dataset.classes, classes),
        ("positions", dataset.positions, () if examples.grouped else tuple(places)),
        ("mean", float32(dataset.mean), float32(examples.mean)),
        ("std", float32(dataset.std), float32(examples.std)),
    ):
        require(name, value, value == own, f"{own}, as of the pipeline,")
    few = slice(config.train_images)
    train = Split(dataset.train.images[few], dataset.train.labels[few])
    return dataclasses.replace(dataset, train=train)


def _open(
    path: str | os.PathLike, model: CodedModel, dataset: Dataset, config: TrainConfig
) -> Path:
    """Makes the folder, or takes up the one that the same training left."""
    pipeline, frozen = model.pipeline, model.frozen
    marks = provenance.of_network(pipeline.base, frozen, model.image_shape)
    marks["code"] = provenance.of_codes(pipeline, frozen)
    marks["data"] = provenance.of_data(dataset)
    marks["split"] = provenance.digest([str(s.plan) for s in pipeline.stages], ())
    of_functions = {f"fingerprint_of_{name}": mark for name, mark in marks.items()}
    tail = "frozen" if pipeline.tail_copy is None else "tuned"
    of_pipeline = {"stages": [s.blocks for s in pipeline.stages], "tail": tail}
    of_pipeline |= pipeline.coding._asdict() | pipeline.examples._asdict()
    shown = {name: str(value) for name, value in of_pipeline.items()}
    return workdir.open_workdir(path, settings.to_flags(config) | shown | of_functions)
