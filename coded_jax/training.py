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

from coded_jax import checkpoints, distributed, placement
from coded_jax.types import PyTree

LOG_STEPS = 50
SAVE_SECONDS = 30.0


class Task(NamedTuple):
    """What is trained, and by what.

    Attributes:
      init: `key -> params`.
      loss: `(params, frozen, batch, key) -> (losses [B], moved)`, where `batch` is the
        training arrays with `[B, ...]` of their rows, and `moved` has those of the
        params, in their places, that are set and not learned; `{}` for none.
      score: `params -> float`, on validation data; the best epoch's parameters win.
      optimizer: any optax transformation.
    """

    init: Callable[[jax.Array], PyTree]
    loss: Callable[[PyTree, PyTree, PyTree, jax.Array], tuple[jax.Array, PyTree]]
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
    score: Any  # float; float32 [S] for S seeds
    steps: int
    seconds: float  # of training steps, former runs' and compilation included


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


def steps_per_call() -> int:
    """How many steps one call of `train_steps` does, here and nowhere else decided.

    One on a CPU: XLA's CPU backend computes gradients of convolutions inside a loop by
    a naive kernel (8 steps: 6 to 9 s in `lax.scan`, 0.2 to 0.4 s in a Python loop, on 2
    cores). Many elsewhere, where the host could not keep the device busy.
    """
    return 1 if jax.default_backend() == "cpu" else LOG_STEPS


@functools.partial(
    jax.jit,
    static_argnames=("loss", "optimizer", "batch_size", "count"),
    donate_argnames="state",
)
def train_steps(
    state: TrainState,
    frozen: PyTree,
    arrays: PyTree,
    order: jax.Array,
    key: jax.Array,
    *,
    loss: Callable,
    optimizer: optax.GradientTransformation,
    batch_size: int,
    count: int = 1,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """`count` steps, each on the next `batch_size` rows of this epoch's order.

    Args:
      state: donated. With a leading axis of seeds on its leaves, on `order` and on
        `key`, each seed is trained by itself.
      frozen: variables that the loss uses but that are not trained.
      arrays: whole training arrays `[N, ...]`, resident on the device.
      order: int32 `[N]`, this epoch's permutation.
      key: of the whole fit; each step's own key is derived from it.
      loss, optimizer: as in `Task`.
      batch_size: B.
      count: steps, of one epoch.

    Returns:
      The next state, and the last step's metrics `loss` float32 and `bad_step` int32.
    """

    def one(state: TrainState, order: jax.Array, key: jax.Array) -> tuple:
        start = state.step % (order.size // batch_size) * batch_size
        rows = jax.lax.dynamic_slice_in_dim(order, start, batch_size)
        batch = jax.tree.map(lambda a: a[rows], arrays)
        step_key = jax.random.fold_in(key, state.step)

        def mean_loss(params: PyTree) -> tuple[jax.Array, PyTree]:
            losses, moved = loss(params, frozen, batch, step_key)
            return losses.mean(), moved

        (value, moved), grads = jax.value_and_grad(mean_loss, has_aux=True)(
            state.params
        )
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        bad = (state.bad_step < 0) & ~jnp.isfinite(value)
        bad_step = jnp.where(bad, state.step, state.bad_step)
        params = _set(optax.apply_updates(state.params, updates), moved)
        next_state = TrainState(state.step + 1, params, opt_state, bad_step)
        return next_state, {"loss": value, "bad_step": bad_step}

    step = jax.vmap(one) if state.step.ndim else one
    if count == 1:
        return step(state, order, key)
    state, metrics = jax.lax.scan(
        lambda state, _: step(state, order, key), state, length=count
    )
    return state, jax.tree.map(lambda values: values[-1], metrics)


def _set(params: PyTree, moved: PyTree) -> PyTree:
    """`params` with what `moved` has in the place of its own."""
    if not isinstance(moved, dict):
        return moved
    changed = {name: _set(params[name], value) for name, value in moved.items()}
    return {**params, **changed} if changed else params


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
        seeds at once, each as its key alone would; see `fit_seeds`.
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
    distributed.require_same(
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
            due = asked and distributed.any_process(due)
            stopping = asked and distributed.any_process(stopping)
        if ends_epoch or due or stopping:
            jax.block_until_ready(state)
            seconds += time.perf_counter() - clock
            if ends_epoch:
                _check_finite(state, saved_step, directory)
                best, score = _update(best, state.params, task.score)
                loss = float(np.mean(metrics["loss"]))
                observer.log(step, {"loss": loss, "validation_accuracy": score})
            save()
            if stopping:
                raise Interrupted(f"stopped at step {step} of {steps}, which is saved")
            clock = last_save = time.perf_counter()
    score = np.asarray(best.score) if seeds else float(best.score)
    return Fitted(best.params, score, steps, seconds)


def fit_seeds(
    task: Task,
    frozen: PyTree,
    arrays: PyTree,
    *,
    keys: jax.Array,
    directory: str | os.PathLike,
    **settings: Any,
) -> list[Fitted]:
    """`fit` for every one of `keys` `[S]`, from a checkpoint folder each or of all.

    Together as one `vmap` on an accelerator. One after the other on a CPU, where
    convolutions with a kernel for each seed are 35 to 45 times as slow (2 cores).
    """
    if steps_per_call() == 1:
        return [
            fit(
                task,
                frozen,
                arrays,
                key=key,
                directory=os.path.join(directory, str(i)),
                **settings,
            )
            for i, key in enumerate(keys)
        ]
    fitted = fit(task, frozen, arrays, key=keys, directory=directory, **settings)
    return [
        fitted._replace(params=_seed(fitted.params, i), score=score)
        for i, score in enumerate(np.asarray(fitted.score).tolist())
    ]


def _seed(params: PyTree, i: int) -> PyTree:
    return jax.tree.map(lambda leaf: leaf[i], params)


def _update(
    best: Best, params: PyTree, score: Callable[[PyTree], float]
) -> tuple[Best, float]:
    """The best parameters, of each seed, and the mean score now."""
    if not best.score.ndim:
        value = score(params)
        scores = np.float32(value)
    else:
        each = [score(_seed(params, i)) for i in range(len(best.score))]
        scores, value = np.asarray(each, np.float32), float(np.mean(each))
    return _keep_better(best, scores, params), value


@functools.partial(jax.jit, donate_argnames="best")
def _keep_better(best: Best, scores: jax.Array, params: PyTree) -> Best:
    better = scores >= best.score

    def keep(old: jax.Array, new: jax.Array) -> jax.Array:
        shape = better.shape + (1,) * (new.ndim - better.ndim)
        return jnp.where(better.reshape(shape), new, old)

    return jax.tree.map(keep, best, Best(scores, params))


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
