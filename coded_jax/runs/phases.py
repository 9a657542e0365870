"""Phases of a run: how each is trained, kept and shown."""

from __future__ import annotations

import contextlib
import functools
import shutil
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from coded_jax.devices import placement, processes
from coded_jax.inference.pipeline import Pipeline
from coded_jax.runs.config import Config
from coded_jax.runs.progress import LiveTable, PhaseLog
from coded_jax.runs.workdir import (
    CHECKPOINTS,
    MOMENTS,
    checkpoint_folder,
    phase_of,
    write_atomically,
)
from coded_jax.training import checkpoints, exact_targets, tasks, views
from coded_jax.training.config import TrainConfig
from coded_jax.training.loop import (
    Fitted,
    Interrupted,
    Observer,
    Task,
    fit,
    seed_of,
)
from coded_jax.training.optimizers import Regime
from coded_jax.training.signals import stop_requests
from coded_jax.training.steps import MAPS_SEEDS, initial_state, steps_per_call
from coded_jax.types import Dataset, PyTree

BASE, CODE = "base", "code"
"""The phases that train the base model and the code; others train baselines."""

SAVED_IMAGES = 5000
"""After so many images the sums of a fit are kept anew."""

KEY_NUMBERS = {CODE: 1, "no_parity": 2}
"""Numbers that the keys of these codes' draws are made with; those of other codes are
made with a checksum of their names, and so do not depend on which others there are."""


def regime_of(config: Config, phase: str) -> Regime:
    """Returns the regime of a phase: of `BASE`, or of any code."""
    if phase != BASE:
        return code_regime(config, config.recipe)
    decay = config.base_weight_decay
    return Regime(
        epochs=config.base_epochs,
        batch_size=config.base_batch_size or config.batch_size,
        learning_rate=config.base_learning_rate or config.learning_rate,
        schedule=config.base_schedule,
        weight_decay=config.weight_decay if decay is None else decay,
        products=config.base_products,
        optimizer_name=config.base_optimizer,
    )


def code_regime(config: TrainConfig, recipe: str) -> Regime:
    """Returns the regime of a code, in a run or by `train`.

    The learning rate is as the recipe says, whatever the code: it falls along a cosine
    with the systematic one, and is constant with the paper's.
    """
    return Regime(
        epochs=config.epochs,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        schedule="cosine" if recipe == "systematic" else "constant",
        weight_decay=config.weight_decay,
        products=config.products,
    )


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

    def log(
        self, phase: str, regime: Regime, examples: int
    ) -> AbstractContextManager[Observer]:
        """Returns the observer of one phase, by which the lead process logs it.

        Args:
          phase: its name, see `workdir.phase_of`.
          regime: of the phase.
          examples: of the training part.
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
        console, table = Console(quiet=True), None
    with contextlib.ExitStack() as stack:
        if table is None:
            table = stack.enter_context(LiveTable(console or Console(stderr=True)))
        # Where nothing is saved, Ctrl-C stops at once.
        stop = stack.enter_context(stop_requests()) if folder else lambda: False
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

    Several seeds are trained at once or in turn, see `trainings`. Whatever is kept
    already is gone on from.

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
    regime = code_regime(config, pipeline.coding.recipe)
    examples = len(inputs.train.labels)
    optimizer = regime.optimizer(examples)
    if all(stage.code.traits.constants for stage in pipeline.stages):
        params = exact_targets.constants(pipeline, frozen, arrays["images"])
        if watch.folder:
            # As if by one step of training, so that it is loaded like any other.
            state = initial_state(lambda key: params, optimizer, key)
            checkpoints.save(checkpoint_folder(watch.folder, name), 1, state)
        return [Fitted(params, None, 1, 0.0)]
    if all(stage.code.traits.fit for stage in pipeline.stages):
        more = {"arrays": arrays, "name": name}
        return [
            _fit_views(pipeline, frozen, inputs, config, watch, **more, seed=seed)
            for seed in range(config.seeds)
        ]
    task = tasks.code_task(pipeline, frozen, inputs, optimizer, config)
    number = KEY_NUMBERS.get(name) or zlib.crc32(name.encode())
    first = jax.random.fold_in(key, number)
    others = [jax.random.fold_in(first, seed) for seed in range(1, config.seeds)]
    fitted = {}
    for phase, own in trainings(task, jnp.stack([first, *others]), watch.folder, name):
        with watch.log(phase, regime, examples) as observer:
            fitted[phase] = fit(
                task,
                frozen,
                arrays,
                own,
                regime,
                mesh=pipeline.mesh,
                directory=watch.folder and checkpoint_folder(watch.folder, phase),
                observer=observer,
                stop=watch.stop,
            )
    return [fitted[phase_of(name, seed)] for seed in range(config.seeds)]


def _fit_views(
    pipeline: Pipeline,
    frozen: PyTree,
    inputs: Dataset,
    config: TrainConfig,
    watch: Watch,
    *,
    arrays: dict[str, Any],
    name: str,
    seed: int,
) -> Fitted:
    """Fits a decoder of views with one seed; arguments as of `train_code`.

    What is computed of the images is the same for all codes of a run: it is kept in the
    folder, or in `arrays`.
    """
    begun, phase = time.perf_counter(), phase_of(name, seed)
    (stage,), key = pipeline.stages, jax.random.key(config.seed)
    optimizer = code_regime(config, pipeline.coding.recipe).optimizer(1)
    folder = watch.folder and checkpoint_folder(watch.folder, phase)
    like = jax.eval_shape(lambda: initial_state(pipeline.init, optimizer, key))
    if folder and (done := checkpoints.restore(folder, like)):
        best = placement.put_replicated(pipeline.mesh, done.state[1])
        return Fitted(best.params, float(best.score), done.step, done.seconds)
    has_network = views.NETWORK in jax.eval_shape(stage.code.init, key)
    first = jax.random.fold_in(key, KEY_NUMBERS[CODE])
    own_key = jax.random.fold_in(first, seed) if seed else first
    sums, features = _see_images(
        pipeline, frozen, config, watch, arrays, own_key, seed, has_network
    )
    ridges = views.RIDGES if config.ridge is None else (config.ridge,)
    images = tasks.device_arrays(pipeline.mesh, inputs.validation)
    validation = views.Validation.of(pipeline, frozen, images)
    choice = views.choose(pipeline, frozen, sums.moments, validation, ridges)
    (params,), score = choice.params, choice.score
    regime = code_regime(config, "systematic")._replace(optimizer_name="adamw")
    steps = -(-sums.seen // regime.batch_size)
    if features is not None:
        adamw = regime.optimizer(sums.seen)
        task = views.network_task(pipeline, params, frozen, validation, config, adamw)
        labels = np.resize(np.asarray(arrays["labels"]), sums.seen)
        of_results = {**features.arrays, "labels": labels}
        trained = phase_of(f"{name}_network", seed)
        with watch.log(trained, regime, sums.seen) as observer:
            fitted = fit(
                task,
                (frozen, params),
                placement.put_replicated(pipeline.mesh, of_results),
                own_key,
                regime,
                mesh=pipeline.mesh,
                directory=watch.folder and checkpoint_folder(watch.folder, trained),
                observer=observer,
                stop=watch.stop,
            )
        params = {**params, views.NETWORK: fitted.params}
        score, steps = fitted.score, fitted.steps
    seconds = time.perf_counter() - begun
    if folder:
        # As if by steps of training, so that it is loaded like any other.
        state, best = initial_state(lambda key: (params,), optimizer, key)
        best = best._replace(score=jnp.asarray(score, jnp.float32))
        checkpoints.save(folder, steps, (state, best), seconds=seconds)
    return Fitted((params,), score, steps, seconds)


def _see_images(
    pipeline: Pipeline,
    frozen: PyTree,
    config: TrainConfig,
    watch: Watch,
    arrays: dict[str, Any],
    key: jax.Array,
    seed: int,
    keeps: bool,
) -> tuple[views.Sums, views.Features | None]:
    """Passes over the training images, or takes what a former pass has left.

    Returns:
      The sums, and the results themselves if they are kept.
    """
    images, known = arrays["images"], arrays.setdefault("seen", {})
    if seed in known:
        return known[seed]
    passes = views.Passes(config.passes, config.code_augmentation, key)
    goal = passes.images(len(images))
    folder = watch.folder and watch.folder / MOMENTS / str(seed)
    file = folder and folder / "sums.npz"
    features = views.Features(pipeline, goal, folder) if keeps else None
    begun = views.read(file) if file else None
    if features is not None and features.are_new:
        begun = None
    sums, row = begun, watch.table.begin(phase_of("views", seed), goal)
    for sums in views.moments_of(pipeline, frozen, images, passes, begun, keeps):
        if features is not None:
            features.put(sums)
        watch.table.update(row.id, completed=sums.seen)
        stopped = processes.any_process(watch.stop())
        ends = sums.seen == goal or sums.seen % SAVED_IMAGES < views.CHUNK
        if file and (stopped or ends):
            if features is not None:
                features.flush()
            _write_sums(file, sums)
        if stopped:
            raise Interrupted("stopped in a pass over the images, saved up to there")
    watch.table.update(row.id, completed=goal)
    assert sums is not None
    known[seed] = sums, features
    return known[seed]


def forget_views(folder: Path) -> None:
    """Removes the results that trainings of a folder have kept; their sums stay."""
    for file in (folder / MOMENTS).glob("*/*.npy"):
        file.unlink()


def _write_sums(file: Path, sums: views.Sums) -> None:
    """Keeps sums, whole or not at all; of several processes, the lead does."""

    def write_file() -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, views.write(sums))

    processes.by_lead(write_file)


def training_arrays(
    pipeline: Pipeline,
    frozen: PyTree,
    inputs: Dataset,
    config: TrainConfig,
    learns: bool = True,
) -> dict[str, Any]:
    """Places the training part on the devices, with the features that codes learn to
    reconstruct, if any `learns`, where images stay as they are, and these fit there."""
    arrays = tasks.device_arrays(pipeline.mesh, inputs.train)
    if not learns or config.code_augmentation != "none":
        return arrays
    return exact_targets.with_targets(pipeline, frozen, arrays)


def trainings(
    task: Task, keys: jax.Array, folder: Path | None, name: str
) -> Iterator[tuple[str, jax.Array]]:
    """Yields the trainings of a code with S seeds, each to be done before the next.

    On an accelerator all seeds without a checkpoint are trained as one `vmap`, whose
    checkpoint is then divided among them, so that each goes on from its end. On a CPU
    they are trained one after the other: there convolutions with a kernel for each seed
    are 35 to 45 times as slow (2 cores). So they are where JAX is older than 0.8, see
    `steps.MAPS_SEEDS`, and where nothing is kept.

    Args:
      task: what is trained.
      keys: `[S]`, one of each seed.
      folder: of the checkpoints; None if nothing is kept.
      name: of the code.

    Yields:
      The name of the phase, and its key, or the keys of several seeds.
    """
    phases = [phase_of(name, seed) for seed in range(len(keys))]
    if folder and (together := _trained_together(folder, name, phases)):
        joint = f"{name}_{together[0]}-{together[-1]}"
        yield joint, keys[together[0] : together[-1] + 1]
        _divide(task, folder, joint, [phases[seed] for seed in together])
    yield from zip(phases, keys, strict=True)


def _trained_together(folder: Path, name: str, phases: list[str]) -> range:
    """Returns the seeds that are trained as one `vmap`, perhaps none."""
    # A killed process may have left a checkpoint of such a training.
    for path in (folder / CHECKPOINTS).glob(f"{name}_*-*"):
        first, last = map(int, path.name.removeprefix(f"{name}_").split("-"))
        if last < len(phases):  # else it was for more seeds
            return range(first, last + 1)
    begun = [bool(checkpoints.steps(checkpoint_folder(folder, p))) for p in phases]
    new = range(max(np.flatnonzero(begun), default=-1) + 1, len(phases))
    return new if len(new) > 1 and steps_per_call() > 1 and MAPS_SEEDS else range(0)


def _divide(task: Task, folder: Path, joint: str, phases: list[str]) -> None:
    """Saves the part of each seed as its checkpoint, and removes the joint one."""
    fresh = jax.vmap(functools.partial(initial_state, task.init, task.optimizer))
    source = checkpoint_folder(folder, joint)
    keys = jax.random.split(jax.random.key(0), len(phases))
    restored = checkpoints.restore(source, jax.eval_shape(fresh, keys))
    if restored is None:
        raise OSError(f"cannot read the checkpoint of {joint} in {source}")
    state, seconds = jax.tree.map(np.asarray, restored.state), restored.seconds
    for i, phase in enumerate(phases):
        checkpoints.save(
            checkpoint_folder(folder, phase),
            restored.step,
            seed_of(state, i),
            seconds=seconds / len(phases),
        )
    if processes.is_lead():
        # Renamed first: a checkpoint that is partly removed must not look finished.
        removed = source.with_name(f".{joint}")
        shutil.rmtree(removed, ignore_errors=True)
        source.rename(removed)
        shutil.rmtree(removed)
    processes.any_process(False)  # the others wait
