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
from coded_jax.checks import first_line, require, require_type
from coded_jax.codes.config import STAGES
from coded_jax.data import groups
from coded_jax.data.user_data import collect, require_dataset, require_split
from coded_jax.devices import placement
from coded_jax.inference.pipeline import Pipeline
from coded_jax.runs import fingerprints, workdir
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
    require_type("pipeline", pipeline, Pipeline, "a Pipeline, as of make_pipeline,")
    shape = pipeline.examples.shape
    require(
        "pipeline.examples.shape", shape, min(shape) > 0, "(H, W, C), each 1 or more,"
    )
    config = config or TrainConfig()
    require_patterns(config, pipeline.k, pipeline.r)
    require("seeds", config.seeds, config.seeds == 1, "1, and other seeds one by one,")
    if copy := pipeline.tail_copy:
        accepted = "one whose tail's copy is not settled, see CodedModel.settled,"
        require("pipeline", "a settled one", not copy.settled, accepted)
        accepted = (
            "a TrainConfig with supervision or distillation, for the tail's copy,"
        )
        require("config", config, bool(config.ends_weights), accepted)
    frozen = placement.put_replicated(pipeline.mesh, as_arrays(variables))
    model = CodedModel(pipeline, frozen, None)
    dataset = _dataset(data, model, config)
    pipeline = pipeline.with_values(dataset.values)
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
    try:
        *places, classes = model.answer_shape
    except Exception as error:  # a function of the user's raises anything
        raise ValueError(
            "variables: others given than the base model reads, those of the pipeline "
            f"accepted ({first_line(error)})"
        ) from error
    pipeline = model.pipeline
    positions = () if pipeline.examples.grouped else tuple(places)
    if isinstance(data, Dataset):
        dataset = require_dataset(data)
        fits = dataset.positions == positions
        accepted = f"{positions}, those of the head,"
        require("positions", dataset.positions, fits, accepted)
    else:
        split = collect(data)
        require_split(split, classes, "data", positions)
        dataset = Dataset(
            "own", classes, train=split, validation=split, test=split, mean=(), std=()
        )
    model.check_images(dataset.train.images[: pipeline.images_per_input])
    float32 = lambda numbers: None if numbers is None else np.float32(numbers).tolist()
    for name in ("mean", "std") if isinstance(data, Dataset) else ():
        own, value = getattr(pipeline.examples, name), getattr(dataset, name)
        fits = float32(own) == float32(value)
        require(name, value, fits, f"{own}, that of the pipeline,")
    same = dataset.classes == classes
    require("classes", dataset.classes, same, f"{classes}, those of the head,")
    few = slice(config.train_images)
    train = Split(dataset.train.images[few], dataset.train.labels[few])
    return dataclasses.replace(dataset, train=train)


def _open(
    path: str | os.PathLike, model: CodedModel, dataset: Dataset, config: TrainConfig
) -> Path:
    """Makes the folder, or takes up the one that the same training left."""
    pipeline, frozen = model.pipeline, model.frozen
    marks = fingerprints.of_network(pipeline.base, frozen, model.image_shape)
    marks["code"] = fingerprints.of_codes(pipeline, frozen)
    marks["data"] = fingerprints.of_data(dataset)
    marks["split"] = fingerprints.digest([str(s.plan) for s in pipeline.stages], ())
    of_functions = {f"fingerprint_of_{name}": mark for name, mark in marks.items()}
    show_numbers = lambda values: ",".join(map(str, values or ("none",)))
    of_pipeline = {
        "k": str(pipeline.k),
        "r": str(pipeline.r),
        "stages": STAGES.show([stage.blocks for stage in pipeline.stages]),
        "split": "group" if pipeline.examples.grouped else "image",
        "recipe": pipeline.coding.recipe,
        "parity_moves": str(pipeline.coding.parity_moves),
        "tail": "tuned" if pipeline.tail_copy else "frozen",
        "precision": pipeline.dtype,
        "mean": show_numbers(pipeline.examples.mean),
        "std": show_numbers(pipeline.examples.std),
    }
    fixed = settings.to_flags(config) | of_pipeline | of_functions
    return workdir.open_workdir(path, fixed)
