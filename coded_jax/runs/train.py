"""Trains the codes of a pipeline, in memory or in a folder that it can go on from."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from coded_jax import settings
from coded_jax.checks import first_line, require, require_type
from coded_jax.codes.config import STAGES
from coded_jax.data import groups
from coded_jax.data.checks import require_dataset, require_split
from coded_jax.data.streams import collect
from coded_jax.devices import placement, processes
from coded_jax.evaluation import inspection
from coded_jax.inference.pipeline import Pipeline
from coded_jax.runs import fingerprints, workdir
from coded_jax.runs.coded_model import CodedModel
from coded_jax.runs.logs import PhaseLog
from coded_jax.runs.own_model import as_arrays
from coded_jax.runs.progress import LiveTable, live_table
from coded_jax.runs.regime import CODE, Regime, code_regime
from coded_jax.runs.seeds import trainings
from coded_jax.runs.workdir import RunFlags
from coded_jax.training import checkpoints, exact_targets, tasks
from coded_jax.training.config import TrainConfig, require_patterns
from coded_jax.training.loop import FitConfig, Fitted, Observer, fit
from coded_jax.training.signals import stop_requests
from coded_jax.training.steps import initial_state
from coded_jax.types import Dataset, PyTree, Split

KEY_NUMBERS = {CODE: 1, "no_parity": 2}
"""Numbers that the keys of these codes' draws are made with; those of other codes are
made with a checksum of their names, and so do not depend on which others there are."""


class Watch(NamedTuple):
    """Keeps, shows and stops trainings.

    Attributes:
      folder: of checkpoints and metrics; nothing is kept if None.
      table: that shows them.
      stop: whether to save and end.
    """

    folder: Path | None
    table: LiveTable
    stop: Callable[[], bool]

    def extent(self, phase: str, regime: Regime, pipeline: Pipeline) -> FitConfig:
        """Returns the extent of a phase, with its checkpoints in the folder."""
        directory = self.folder and workdir.checkpoint_folder(self.folder, phase)
        return FitConfig(
            regime.epochs,
            regime.batch_size,
            directory=directory,
            mesh=pipeline.mesh,
            products=regime.products,
        )

    def log(
        self,
        phase: str,
        regime: Regime,
        examples: int,
        picture: Callable[[PyTree], np.ndarray] | None = None,
    ) -> AbstractContextManager[Observer]:
        """Returns the record of a phase, which only the lead process has.

        Args:
          phase: its name, see `workdir.phase_of`.
          regime: of the phase.
          examples: that it trains on.
          picture: see `PhaseLog`.
        """
        if not processes.is_lead():
            return contextlib.nullcontext(Observer())
        return PhaseLog(
            self.folder,
            phase,
            self.table,
            steps=regime.steps(examples),
            batch_size=regime.batch_size,
            rate=regime.rate(examples),
            picture=picture,
        )


@contextlib.contextmanager
def watching(
    folder: Path | None,
    console: Console | None = None,
    table: LiveTable | None = None,
) -> Iterator[Watch]:
    """Shows trainings, and lets Ctrl-C stop them once they are saved, if they can be.

    Args:
      folder: see `Watch`.
      console: where a table of their own is drawn; standard error if None.
      table: that is shown already, in its place.
    """
    if not processes.is_lead():
        console, table = Console(file=io.StringIO()), None
    with contextlib.ExitStack() as stack:
        if table is None:
            table = stack.enter_context(live_table(console or Console(stderr=True)))
        stop: Callable[[], bool] = lambda: False
        if folder is not None:
            stop = stack.enter_context(stop_requests())
        yield Watch(folder, table, stop)


def train_code(
    pipeline: Pipeline,
    frozen: PyTree,
    inputs: Dataset,
    config: TrainConfig,
    watch: Watch,
    *,
    arrays: dict[str, Any],
    name: str = CODE,
) -> list[Fitted]:
    """Trains a code with every seed; one without parameters is left as it is.

    Several seeds are trained at once or in turn, see `seeds.trainings`. Whatever is
    kept already is gone on from.

    Args:
      pipeline: with the code in every coded stage.
      frozen: variables of the base model.
      inputs: of the pipeline, images or groups; the validation part scores.
      config: how.
      watch: keeps, shows and stops the training.
      arrays: those of the training part, `[N, ...]` on the devices, with targets unless
        every step computes its own.
      name: `CODE`, or that of a baseline.

    Raises:
      training.loop.NonFiniteError, training.loop.Interrupted: see `training.loop.fit`.
      OSError: a checkpoint cannot be written.
    """
    key = jax.random.key(config.seed)
    if not jax.tree.leaves(jax.eval_shape(pipeline.init, key)):
        return [Fitted(pipeline.init(key), None, 0, 0.0)]
    regime = code_regime(config, pipeline.recipe)
    examples = len(inputs.train.labels)
    optimizer = regime.optimizer(examples)
    if all(stage.code.constants for stage in pipeline.stages):
        params = exact_targets.constants(pipeline, frozen, arrays["images"])
        if watch.folder:
            # As if by one step of training, so that it is loaded like any other.
            folder = workdir.checkpoint_folder(watch.folder, name)
            state = initial_state(lambda key: params, optimizer, key)
            checkpoints.save(folder, 1, state)
        return [Fitted(params, None, 1, 0.0)]
    task = tasks.code_task(pipeline, frozen, inputs, optimizer, config)
    picture = inspection.drawer(
        pipeline,
        frozen,
        inputs.validation.images[:4],
        range(min(pipeline.r, pipeline.k)),
    )
    number = KEY_NUMBERS.get(name) or zlib.crc32(name.encode())
    key = jax.random.fold_in(key, number)
    others = [jax.random.fold_in(key, seed) for seed in range(1, config.seeds)]
    fitted = {}
    for phase, keys in trainings(task, jnp.stack([key, *others]), watch.folder, name):
        with watch.log(phase, regime, examples, picture) as log:
            fitted[phase] = fit(
                task,
                frozen,
                arrays,
                keys,
                watch.extent(phase, regime, pipeline),
                observer=log,
                stop=watch.stop,
            )
    return [fitted[workdir.phase_of(name, seed)] for seed in range(config.seeds)]


def training_arrays(
    pipeline: Pipeline, frozen: PyTree, inputs: Dataset, config: TrainConfig
) -> dict[str, Any]:
    """Places the training part on the devices, with the features that codes learn to
    reconstruct where images stay as they are, and these fit there."""
    arrays = tasks.device_arrays(pipeline.mesh, inputs.train)
    if config.code_augmentation != "none":
        return arrays
    return exact_targets.with_targets(pipeline, frozen, arrays)


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
        recipe says, see `regime.code_regime`.
      workdir: folder for checkpoints and metrics: killed, the same call goes on from
        there. If None, nothing is left on the disk.
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
    shape = pipeline.image_shape
    require("pipeline.image_shape", shape, min(shape) > 0, "(H, W, C), each 1 or more,")
    config = config or TrainConfig()
    require_patterns(config, pipeline.k, pipeline.r)
    require("seeds", config.seeds, config.seeds == 1, "1, and other seeds one by one,")
    _require_tail_learns(pipeline, config)
    frozen = placement.put_replicated(pipeline.mesh, as_arrays(variables))
    model = CodedModel(pipeline, frozen, None)
    dataset = _dataset(data, model, config)
    pipeline = pipeline._replace(values=dataset.values)
    inputs = groups.inputs_of_dataset(pipeline, dataset)
    total, size = len(inputs.train.labels), config.batch_size
    require("batch_size", size, size <= total, f"1..{total}, the training inputs,")
    if pipeline.learns:
        arrays = training_arrays(pipeline, frozen, inputs, config)
    else:
        arrays = tasks.device_arrays(pipeline.mesh, inputs.train)
    if pipeline.nonnegative:
        exact_targets.require_nonnegative(pipeline, frozen, arrays["images"])
    folder = None if workdir is None else _open(workdir, model, dataset, config)
    with watching(folder, console) as watch:
        (fitted,) = train_code(pipeline, frozen, inputs, config, watch, arrays=arrays)
    return CodedModel(pipeline, frozen, fitted.params)


def _require_tail_learns(pipeline: Pipeline, config: TrainConfig) -> None:
    """Checks that something trains the tail's copy, if there is one."""
    copy = pipeline.tail_copy
    if copy is None:
        return
    accepted = "one whose tail's copy is not settled, see CodedModel.settled,"
    require("pipeline", "a settled one", not copy.settled, accepted)
    accepted = "a TrainConfig with supervision or distillation, for the tail's copy,"
    require("config", config, bool(config.ends_weights), accepted)


def _answer_shape_of(model: CodedModel) -> tuple[int, ...]:
    """Returns the shape of what the base model gives with the variables given."""
    try:
        return model.answer_shape
    except Exception as error:  # a function of the user's raises anything
        raise ValueError(
            "variables: others given than the base model reads, those of the pipeline "
            f"accepted ({first_line(error)})"
        ) from error


def _dataset(data: Any, model: CodedModel, config: TrainConfig) -> Dataset:
    """Returns a checked data set; of one part alone, all parts are that one."""
    *places, classes = _answer_shape_of(model)
    positions = () if model.pipeline.separate else tuple(places)
    if isinstance(data, Dataset):
        dataset = require_dataset(data)
        fits = dataset.positions == positions
        accepted = f"{positions}, those of the head,"
        require("positions", dataset.positions, fits, accepted)
    else:
        split = collect(data)
        require_split(split, classes, "data", positions)
        dataset = Dataset("own", classes, split, split, split, (), ())
    model.check_images(dataset.train.images[: model.pipeline.images_per_input])
    if isinstance(data, Dataset):
        statistics = (dataset.mean, dataset.std)
        own = (model.pipeline.mean, model.pipeline.std)
        same = all(map(_same_numbers, own, statistics))
        require("mean, std", statistics, same, f"{own}, those of the pipeline,")
    fits = dataset.classes == classes
    require("classes", dataset.classes, fits, f"{classes}, those of the head,")
    few = slice(config.train_images)
    train = Split(dataset.train.images[few], dataset.train.labels[few])
    return dataclasses.replace(dataset, train=train)


def _same_numbers(x: tuple | None, y: tuple | None) -> bool:
    """Returns whether images would be normalised alike, in float32."""
    return (x is None) == (y is None) and np.array_equal(
        np.array(x or (), np.float32), np.array(y or (), np.float32)
    )


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
        "split": "group" if pipeline.separate else "image",
        "recipe": pipeline.recipe,
        "parity_moves": str(pipeline.parity_moves),
        "tail": "tuned" if pipeline.tail_copy else "frozen",
        "precision": pipeline.dtype,
        "mean": show_numbers(pipeline.mean),
        "std": show_numbers(pipeline.std),
    }
    fixed = settings.to_flags(config) | of_pipeline | of_functions
    return workdir.open_workdir(path, RunFlags(fixed))
