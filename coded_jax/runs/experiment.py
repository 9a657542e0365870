"""Trainings from their settings to a coded model: an experiment, a CNN of the user's
own with a code around it, and the codes of a pipeline alone."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

from coded_jax.checks import require
from coded_jax.codes import ViewSplit
from coded_jax.data import groups
from coded_jax.data.user_data import collect, require_dataset
from coded_jax.devices import placement, processes
from coded_jax.evaluation import pattern_accuracy
from coded_jax.evaluation.predictions import TrainedPipeline
from coded_jax.inference.pipeline import Pipeline
from coded_jax.runs import kept_base, provenance, results
from coded_jax.runs.build import as_arrays, cut_model, own_base, own_config
from coded_jax.runs.coded_model import CodedModel
from coded_jax.runs.config import Config
from coded_jax.runs.evaluate import measure_codes
from coded_jax.runs.phases import (
    BASE,
    CODE,
    Watch,
    forget_views,
    regime_of,
    train_code,
    training_arrays,
    watching,
)
from coded_jax.runs.prepare import Experiment, prepare
from coded_jax.runs.progress import LiveTable
from coded_jax.runs.workdir import (
    RESULTS,
    Places,
    checkpoint_folder,
    copy_checkpoints,
    open_workdir,
    write_atomically,
)
from coded_jax.settings import to_flags
from coded_jax.staging.planning import plan_stages
from coded_jax.training import exact_targets, tasks, views
from coded_jax.training.config import TrainConfig, require_patterns
from coded_jax.training.loop import Fitted, fit
from coded_jax.types import Block, Dataset, PyTree, Split

CHEAP = {"parity_pieces": "smaller", "encoder": "linear", "decoder": "sharpen"}
"""Settings of codes for deep networks, on whose features dense ones would be huge."""


def run(
    experiment: Experiment,
    *,
    console: Console | None = None,
    progress: LiveTable | None = None,
    command: str = "",
) -> CodedModel:
    """Trains base model, code and baselines, tries every pattern, writes the results.

    Whatever a former run of the same experiment finished is taken from its workdir.

    Args:
      experiment: from `prepare`.
      console: where progress is shown; standard error if None.
      progress: a table that is shown already.
      command: recorded in the results.

    Returns:
      The coded model of the first seed; its `results` are the content of
      `results.json`.

    Raises:
      NonFiniteError, Interrupted: see `training.loop.fit`.
      OSError: the workdir can no longer be written to.
    """
    config, inputs = experiment.config, experiment.examples
    pipelines = experiment.pipelines
    with watching(experiment.folder, console, progress) as watch:
        base = train_base(experiment, watch)
        # The same for every code: they differ in their parity pieces only.
        learns = any(pipeline.learns for pipeline in pipelines.values())
        arrays = training_arrays(
            experiment.pipeline, base.params, inputs, config, learns
        )
        codes = {
            name: train_code(
                pipeline, base.params, inputs, config, watch, arrays=arrays, name=name
            )
            for name, pipeline in pipelines.items()
        }
        del arrays
        accuracy, measured = measure_codes(experiment, base.params, codes, watch)
    content = results.content(
        experiment, base, codes, accuracy, measured, command=command
    )
    if not experiment.pipeline.exact:
        own = TrainedPipeline(experiment.pipeline, base.params, codes[CODE][0].params)
        images = tasks.device_arrays(own.pipeline.mesh, inputs.validation)
        validation = views.Validation.of(own.pipeline, base.params, images)
        content["sets"] = views.by_set(own, validation)
    if experiment.folder and processes.is_lead():
        text = json.dumps(content, indent=1) + "\n"
        write_atomically(experiment.folder / RESULTS, text)
        forget_views(experiment.folder)
    return CodedModel(experiment.pipeline, base.params, codes[CODE][0].params, content)


def train_base(experiment: Experiment, watch: Watch) -> Fitted:
    """Trains the base model, in the folder that runs share if there is one, and copies
    its checkpoints into the workdir; one that is trained already is only scored."""
    config, dataset = experiment.config, experiment.dataset
    pipeline, own = experiment.uncoded, experiment.variables
    if own is not None:
        validation = tasks.device_arrays(pipeline.mesh, dataset.validation)
        score = pattern_accuracy.base_accuracy(pipeline, own, validation)
        return Fitted(own, score, 0, 0.0)
    regime, examples = regime_of(config, BASE), len(dataset.train.labels)
    task = tasks.base_task(
        pipeline,
        dataset,
        regime.optimizer(examples),
        augmentation=config.augmentation,
        label_smoothing=config.label_smoothing,
        start=experiment.start,
    )
    arrays = tasks.device_arrays(pipeline.mesh, dataset.train)
    key = jax.random.fold_in(jax.random.key(config.seed), 0)

    def fit_in(place: Path | None) -> Fitted:
        with watch._replace(folder=place).log(BASE, regime, examples) as observer:
            return fit(
                task,
                {},
                arrays,
                key,
                regime,
                mesh=pipeline.mesh,
                directory=place and checkpoint_folder(place, BASE),
                observer=observer,
                stop=watch.stop,
            )

    folder, base_folder = experiment.folder, experiment.base_folder
    if folder and base_folder and base_folder != folder:
        if not kept_base.is_kept(base_folder):
            fit_in(base_folder)
            if processes.is_lead():
                copy_checkpoints(base_folder, folder, BASE)
            processes.any_process(False)  # the others wait for the copy
        elif not checkpoint_folder(folder, BASE).exists():
            kept_base.take(base_folder, folder)
    if folder and kept_base.is_kept(folder):
        kept, steps = kept_base.read(folder, "workdir"), regime.steps(examples)
        watch.table.update(watch.table.begin(BASE, steps).id, completed=steps)
        variables = placement.put_replicated(pipeline.mesh, kept.variables)
        return Fitted(variables, kept.score, steps, kept.seconds)
    return fit_in(folder)


def protect(
    *,
    blocks: Block | Sequence[Block] | None = None,
    head: Callable[[PyTree, jax.Array], jax.Array] | None = None,
    model: Callable[[PyTree, jax.Array], jax.Array] | None = None,
    variables: PyTree,
    dataset: Dataset,
    workdir: str | os.PathLike | None = None,
    devices: int | None = None,
    mesh: tuple[int, int] | None = None,
    console: Console | None = None,
    **settings: Any,
) -> CodedModel:
    """Gives a trained CNN a code: splits it, trains the code, tries every pattern.

    Args:
      blocks: the convolutional part, `(variables, images [B, H, W, C]) -> features
        [B, M*, M'*, D]`, of anything that `make_plan` accepts; or several such
        functions, each of which takes what the one before it returns, for `stages`.
        Images arrive as `(images / 255 - mean) / std` with the mean and deviation of
        the data set, or as they are if they are float32 and it has none.
      head: `(variables, features [B, M*, M'*, D]) -> logits [B, classes]`; or
        `[B, H', W', classes]`, one answer for each position, of labels `[N, H', W']`.
      model: the whole CNN, `(variables, images [B, H, W, C]) -> logits`, in the place
        of blocks and head; `plan_stages` finds its stages, or with `split="views"`
        `build.cut_model` its pooling. Codes of stages are then cheap ones by default:
        smaller images for parity, linear encoders, decoders that sharpen.
      variables: any pytree of arrays and numbers; real ones are taken as float32.
      dataset: its training part trains the code, its validation part chooses the
        epoch, its test part gives the results.
      workdir: folder for checkpoints and results, as of `experiments/run.py`: killed,
        the same call goes on from there; finished, it only loads. If None, no file is
        written.
      devices, mesh: see `make_mesh`.
      console: where progress is shown; standard error if None.
      settings: fields of `Config`: `k`, `r`, `epochs`, `recipe`, ...; but not those of
        `BaseConfig`, since the CNN is trained already.

    Returns:
      The coded model; its `results` are the content of `results.json`.

    Raises:
      ValueError: a setting is unknown or out of range, the data set is not sound, the
        blocks cannot be split, `head` does not give logits, or the workdir is that of
        another CNN or other data.
    """
    dataset = require_dataset(dataset)
    if model is not None:
        of_views = settings.get("split") == "views"
        cuts = () if of_views else ("stages", "stage_grids", "grid", "split")
        given = {name: settings.get(name) for name in cuts}
        for name, value in {"blocks": blocks, "head": head, **given}.items():
            require(name, value, value is None, "none with a model")
        shape = dataset.image_shape
        if of_views:
            splitting = own_config(settings, Config).splitting
            assert isinstance(splitting, ViewSplit)
            blocks, head = cut_model(model, as_arrays(variables), shape, splitting)
        else:
            settings = {**CHEAP, **settings}
            config = own_config(settings, Config)
            plan = plan_stages(model, variables, shape, config.k, config.r)
            blocks, head, variables = plan.base.blocks, plan.base.head, plan.variables
            settings |= plan.settings
    if blocks is None or head is None:
        raise ValueError("model: None given, the CNN as a function accepted")
    base, variables = own_base(
        blocks,
        head,
        variables,
        dataset.image_shape,
        dataset.classes,
        positions=dataset.positions,
        last="head" if model is None else "model",
    )
    config = own_config(settings, Config)
    places = Places(workdir, devices=devices, mesh=mesh)
    prepared = prepare(config, places, dataset=dataset, base=base, variables=variables)
    if prepared.folder and processes.is_lead():
        kept_base.save_variables(prepared.folder, variables)
    return run(prepared, console=console)


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
    return open_workdir(path, to_flags(config) | shown | of_functions)
