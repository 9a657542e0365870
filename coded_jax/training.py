"""Training by epochs that can be killed at any moment and resumed bit for bit.

Everything random in a step is derived from the key and the step's number, so the state
that a checkpoint holds is all that a resumed run needs.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax

from coded_jax import checkpoints
from coded_jax.types import PyTree

LOG_STEPS = 50
SAVE_SECONDS = 30.0


class Task(NamedTuple):
    """What is trained, and by what.

    Attributes:
      init: `key -> params`.
      loss: `(params, frozen, batch, key) -> scalar`, where `batch` is the dict of
        training arrays with `[B, ...]` of their rows.
      score: `params -> float`, on validation data; the best epoch's parameters win.
      optimizer: any optax transformation.
    """

    init: Callable[[jax.Array], PyTree]
    loss: Callable[[PyTree, PyTree, dict[str, jax.Array], jax.Array], jax.Array]
    score: Callable[[PyTree], float]
    optimizer: optax.GradientTransformation


class TrainState(NamedTuple):
    """What a step changes."""

    step: jax.Array  # int32 [], steps done
    params: PyTree
    opt_state: PyTree
    bad_step: jax.Array  # int32 [], first step with a non-finite loss, -1 if none


class Best(NamedTuple):
    """The parameters of the epoch with the best validation score, and that score."""

    score: jax.Array  # float32 []
    params: PyTree


class Fitted(NamedTuple):
    """The outcome of `fit`: best parameters, their score, and what it took."""

    params: PyTree
    score: float
    steps: int
    seconds: float  # of training steps, over all processes, compilation included


class Observer(Protocol):
    """Watches a fit; see `logs.PhaseLog`."""

    def start(self, step: int) -> None:
        """Called once, with the steps already done."""

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Called every few steps and after every epoch."""


class NonFiniteError(FloatingPointError):
    """A loss or a parameter became NaN or infinite."""


class Interrupted(Exception):
    """A signal asked to stop, and the state has been saved."""


@functools.partial(
    jax.jit,
    static_argnames=("loss", "optimizer", "batch_size"),
    donate_argnames="state",
)
def train_step(
    state: TrainState,
    frozen: PyTree,
    arrays: dict[str, jax.Array],
    order: jax.Array,
    key: jax.Array,
    *,
    loss: Callable,
    optimizer: optax.GradientTransformation,
    batch_size: int,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One step on the next `batch_size` rows of this epoch's order.

    Args:
      state: donated.
      frozen: variables that the loss uses but that are not trained.
      arrays: whole training arrays `[N, ...]`, resident on the device.
      order: int32 `[N]`, this epoch's permutation.
      key: of the whole fit; the step's own key is derived from it.
      loss, optimizer: as in `Task`.
      batch_size: B.

    Returns:
      The next state, and metrics `loss` float32 [] and `bad_step` int32 [].
    """
    start = state.step % (order.size // batch_size) * batch_size
    rows = jax.lax.dynamic_slice_in_dim(order, start, batch_size)
    batch = jax.tree.map(lambda a: a[rows], arrays)
    step_key = jax.random.fold_in(key, state.step)
    value, grads = jax.value_and_grad(loss)(state.params, frozen, batch, step_key)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    bad = (state.bad_step < 0) & ~jnp.isfinite(value)
    bad_step = jnp.where(bad, state.step, state.bad_step)
    params = optax.apply_updates(state.params, updates)
    next_state = TrainState(state.step + 1, params, opt_state, bad_step)
    return next_state, {"loss": value, "bad_step": bad_step}


def initial_state(
    init: Callable[[jax.Array], PyTree],
    optimizer: optax.GradientTransformation,
    key: jax.Array,
) -> tuple[TrainState, Best]:
    """What a checkpoint holds, before the first step."""
    params = init(key)
    none = jnp.asarray(-1, jnp.int32)
    state = TrainState(jnp.asarray(0, jnp.int32), params, optimizer.init(params), none)
    # Copied: the state's own buffers are donated to the first step.
    return state, Best(jnp.asarray(-jnp.inf), jax.tree.map(jnp.copy, params))


def total_steps(examples: int, batch_size: int, epochs: float) -> int:
    """Steps of `epochs` epochs; an epoch drops the last incomplete batch."""
    return max(1, round(epochs * (examples // batch_size)))


def fit(
    task: Task,
    frozen: PyTree,
    arrays: dict[str, jax.Array],
    *,
    key: jax.Array,
    epochs: float,
    batch_size: int,
    directory: str | os.PathLike,
    observer: Observer,
    stop: Callable[[], bool] = lambda: False,
) -> Fitted:
    """Trains, checkpointing into `directory`, from the last checkpoint found there.

    Args:
      task: what to train.
      frozen: variables handed to the loss.
      arrays: training arrays `[N, ...]` on the device.
      key: fixes initialisation, data order and every random draw.
      epochs: may be a fraction; the last epoch is then cut short.
      batch_size: B, at most N.
      directory: of the checkpoints.
      observer: told of the progress.
      stop: asked after every step whether to save and stop; see `signals`.

    Raises:
      NonFiniteError: the loss became NaN or infinite.
      Interrupted: `stop` said so; the state is saved.
    """
    examples = len(next(iter(arrays.values())))
    epoch_steps = examples // batch_size
    steps = total_steps(examples, batch_size, epochs)
    init_key, order_key, step_key = jax.random.split(key, 3)

    fresh = functools.partial(initial_state, task.init, task.optimizer, init_key)
    restored = checkpoints.restore(directory, jax.eval_shape(fresh))
    state, best = restored.state if restored else fresh()
    step = restored.step if restored else 0
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

    permutation = jax.jit(jax.random.permutation, static_argnums=1)
    advance = functools.partial(
        train_step,
        loss=task.loss,
        optimizer=task.optimizer,
        batch_size=batch_size,
    )
    order, metrics, order_epoch = None, None, -1
    clock = last_save = time.perf_counter()
    while step < steps:
        if step // epoch_steps != order_epoch:
            order_epoch = step // epoch_steps
            order = permutation(jax.random.fold_in(order_key, order_epoch), examples)
        state, new_metrics = advance(state, frozen, arrays, order, step_key)
        step += 1
        if step % LOG_STEPS == 1 and metrics is not None:
            # The metrics of an earlier step, so that the device never waits.
            if int(metrics["bad_step"]) >= 0:
                _check_finite(state, saved_step, directory)
            observer.log(step - 1, {"loss": float(metrics["loss"])})
        metrics = new_metrics
        ends_epoch = step % epoch_steps == 0 or step == steps
        due = time.perf_counter() - last_save > SAVE_SECONDS
        if ends_epoch or due or stop():
            jax.block_until_ready(state)
            seconds += time.perf_counter() - clock
            if ends_epoch:
                _check_finite(state, saved_step, directory)
                score = task.score(state.params)
                if score >= float(best.score):
                    copy = jax.tree.map(jnp.copy, state.params)
                    best = Best(jnp.asarray(score, jnp.float32), copy)
                loss = float(metrics["loss"])
                observer.log(step, {"loss": loss, "validation_accuracy": score})
            save()
            if stop():
                raise Interrupted(f"stopped at step {step} of {steps}, which is saved")
            clock = last_save = time.perf_counter()
    return Fitted(best.params, float(best.score), steps, seconds)


def _check_finite(state: TrainState, saved_step: int, directory: object) -> None:
    """Raises NonFiniteError if the state must not be saved."""
    kept = (
        f"the last good checkpoint, step {saved_step}, is kept in {directory}"
        if saved_step
        else "there is no checkpoint yet"
    )
    if (bad := int(state.bad_step)) >= 0:
        raise NonFiniteError(f"loss: not finite at step {bad}; {kept}")
    finite = [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params)]
    if not all(map(bool, finite)):
        raise NonFiniteError(
            f"params: not finite after step {int(state.step) - 1}; {kept}"
        )
