"""Training by epochs that can be killed at any moment and resumed bit for bit.

Everything random in a step is derived from the key and the step's number, so the state
that a checkpoint holds is all that a resumed run needs.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from coded_jax.devices import placement, processes
from coded_jax.training import checkpoints
from coded_jax.training.steps import (
    Best,
    TrainState,
    initial_state,
    keep_better,
    steps_per_call,
    train_steps,
)
from coded_jax.types import PyTree

SCORE = "validation_accuracy"
BY_LOST = "accuracy_{}_lost"  # mean over all patterns of that many lost results
LOG_STEPS = 50
SAVE_SECONDS = 30.0


class Task(NamedTuple):
    """What is trained, and by what.

    Attributes:
      init: `key -> params`.
      loss: `(params, frozen, batch, key) -> (losses [B], moved)`, where `batch` is the
        training arrays with `[B, ...]` of their rows, and `moved` has those of the
        params, in their places, that are set and not learned; `{}` for none.
      score: `params -> metrics` of validation data, to be logged; the parameters of
        the epoch with the best `SCORE` among them win.
      optimizer: any optax transformation.
    """

    init: Callable[[jax.Array], PyTree]
    loss: Callable[[PyTree, PyTree, PyTree, jax.Array], tuple[jax.Array, PyTree]]
    score: Callable[[PyTree], dict[str, float]]
    optimizer: optax.GradientTransformation


class Fitted(NamedTuple):
    """The outcome of `fit`: best parameters, their score, and what it took."""

    params: PyTree
    score: Any  # float; float32 [S] for S seeds
    steps: int
    seconds: float  # of training steps, former runs' and compilation included


class Observer(Protocol):
    """Watches a fit; see `logs.PhaseLog`."""

    def start(self, step: int) -> None:
        """Called once, with the steps already done."""

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Called every few steps and after every epoch."""

    def end_epoch(self, step: int, params: PyTree) -> None:
        """Called after every epoch, with the parameters of the first seed."""


class NonFiniteError(FloatingPointError):
    """A loss or a parameter became NaN or infinite."""


class Interrupted(Exception):
    """A signal asked to stop, and the state has been saved."""


def total_steps(examples: int, batch_size: int, epochs: float) -> int:
    """Steps of `epochs` epochs; an epoch drops the last incomplete batch."""
    return max(1, round(epochs * (examples // batch_size)))


def fit(
    task: Task,
    frozen: PyTree,
    arrays: PyTree,
    *,
    key: jax.Array,
    epochs: float,
    batch_size: int,
    directory: str | os.PathLike,
    observer: Observer,
    stop: Callable[[], bool] = lambda: False,
    mesh: Mesh | None = None,
) -> Fitted:
    """Trains, checkpointing into `directory`, from the last checkpoint found there.

    Args:
      task: what to train.
      frozen: variables handed to the loss.
      arrays: training arrays `[N, ...]`, whole on every device of the mesh.
      key: fixes initialisation, data order and every random draw. Keys `[S]` train S
        seeds at once, each as its key alone would; see `seeds`.
      epochs: may be a fraction; the last epoch is then cut short.
      batch_size: B, at most N.
      directory: of the checkpoints; on a file system that all processes share.
      observer: told of the progress.
      stop: asked after every step whether to save and stop; see `signals`.
      mesh: where the state is kept, whole on every device.

    Raises:
      NonFiniteError: the loss became NaN or infinite.
      Interrupted: `stop` said so; the state is saved.
    """
    examples = len(jax.tree.leaves(arrays)[0])
    epoch_steps = examples // batch_size
    steps = total_steps(examples, batch_size, epochs)
    seeds = bool(key.ndim)
    each = jax.vmap if seeds else lambda f: f
    keys = each(lambda key: jax.random.split(key, 3))(key)
    init_key, order_key, step_key = (
        placement.put_everywhere(mesh, keys[..., i]) for i in range(3)
    )

    fresh = each(functools.partial(initial_state, task.init, task.optimizer))
    restored = checkpoints.restore(directory, jax.eval_shape(fresh, init_key))
    if restored:
        state, best = placement.put_everywhere(mesh, restored.state)
    else:
        start = jax.jit(lambda key: placement.everywhere(mesh, fresh(key)))
        state, best = start(init_key)
    step = restored.step if restored else 0
    processes.require_same(
        "workdir", step, "one on a file system that all processes share accepted"
    )
    seconds = restored.seconds if restored else 0.0
    saved_step = step
    observer.start(step)

    def save() -> None:
        nonlocal saved_step
        if step == saved_step:
            return
        _check_finite(state, saved_step, directory)
        checkpoints.save(directory, step, (state, best), seconds=seconds)
        saved_step = step

    @jax.jit
    def permutations(epoch: jax.Array) -> jax.Array:
        one = lambda key: jax.random.permutation(
            jax.random.fold_in(key, epoch), examples
        )
        return each(one)(order_key)

    advance = functools.partial(
        train_steps, loss=task.loss, optimizer=task.optimizer, batch_size=batch_size
    )
    most = min(steps_per_call(), epoch_steps)
    order, metrics, order_epoch, logged = None, None, -1, step
    clock = last_save = time.perf_counter()
    while step < steps:
        if step // epoch_steps != order_epoch:
            order_epoch = step // epoch_steps
            order = permutations(np.int32(order_epoch))
        epoch_end = min((order_epoch + 1) * epoch_steps, steps)
        # Only two programs are compiled: `most` steps, and one.
        count = most if step + most <= epoch_end else 1
        state, new_metrics = advance(
            state, frozen, arrays, order, step_key, count=count
        )
        if step - logged >= LOG_STEPS and metrics is not None:
            # The metrics of an earlier step, so that the device never waits.
            if (np.asarray(metrics["bad_step"]) >= 0).any():
                _check_finite(state, saved_step, directory)
            observer.log(step, {"loss": float(np.mean(metrics["loss"]))})
            logged = step
        step += count
        metrics = new_metrics
        ends_epoch = step == epoch_end
        due = time.perf_counter() - last_save > SAVE_SECONDS
        stopping = stop()
        if jax.process_count() > 1:  # their clocks differ, their steps must not
            asked = ends_epoch or step // LOG_STEPS > (step - count) // LOG_STEPS
            due = asked and processes.any_process(due)
            stopping = asked and processes.any_process(stopping)
        if ends_epoch or due or stopping:
            jax.block_until_ready(state)
            seconds += time.perf_counter() - clock
            if ends_epoch:
                _check_finite(state, saved_step, directory)
                best, scores = _update(best, state.params, task.score)
                loss = float(np.mean(metrics["loss"]))
                observer.log(step, {"loss": loss, **scores})
                params = seed_of(state.params, 0) if seeds else state.params
                observer.end_epoch(step, params)
            save()
            if stopping:
                raise Interrupted(f"stopped at step {step} of {steps}, which is saved")
            clock = last_save = time.perf_counter()
    score = np.asarray(best.score) if seeds else float(best.score)
    return Fitted(best.params, score, steps, seconds)


def seed_of(tree: PyTree, i: int) -> PyTree:
    """What belongs to the i-th of several seeds, whose axis is the first one."""
    return jax.tree.map(lambda leaf: leaf[i], tree)


def _update(
    best: Best, params: PyTree, score: Callable[[PyTree], dict[str, float]]
) -> tuple[Best, dict[str, float]]:
    """Each seed's best parameters, and the metrics now, their means over seeds."""
    if not best.score.ndim:
        metrics = score(params)
        return keep_better(best, np.float32(metrics[SCORE]), params), metrics
    each = [score(seed_of(params, i)) for i in range(len(best.score))]
    scores = np.asarray([metrics[SCORE] for metrics in each], np.float32)
    means = {name: float(np.mean([m[name] for m in each])) for name in each[0]}
    return keep_better(best, scores, params), means


def _check_finite(state: TrainState, saved_step: int, directory: object) -> None:
    """Raises NonFiniteError if the state must not be saved."""
    kept = (
        f"the last good checkpoint, step {saved_step}, is kept in {directory}"
        if saved_step
        else "there is no checkpoint yet"
    )
    if (bad := int(np.max(state.bad_step))) >= 0:
        raise NonFiniteError(f"loss: not finite at step {bad}; {kept}")
    finite = [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params)]
    if not all(map(bool, finite)):
        raise NonFiniteError(
            f"params: not finite after step {int(np.max(state.step)) - 1}; {kept}"
        )
