"""Training by epochs that can be killed at any moment and resumed bit for bit.

Everything random in a step is derived from the key and the step's number, so the state
that a checkpoint holds is all that a resumed run needs.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from coded_jax.devices import placement, processes, startup
from coded_jax.training import checkpoints
from coded_jax.training.optimizers import Regime
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
EPOCH_SAVE_SECONDS = 2.0
"""After an epoch a checkpoint is written if the last one is older than this: one takes
some 50 ms, a third of an epoch of 3,500 small images."""


Loss = Callable[[PyTree, PyTree, PyTree, jax.Array], tuple[jax.Array, PyTree]]
"""`(params, frozen, batch, key) -> (loss [], updated_stats)`, see `Task`."""


class Task(NamedTuple):
    """Parameters to be trained, their loss, and how epochs are compared.

    Attributes:
      init: `key -> params`.
      loss: `(params, frozen, batch, key) -> (loss [], updated_stats)`, where `batch`
        is the training arrays with `[B, ...]` of their rows, and `updated_stats` has
        those of the params, in their places, that are set and not learned, as running
        means of a batch norm; `{}` for none.
      score: `params -> metrics` of validation data, to be logged; the parameters of
        the epoch with the best `SCORE` among them win.
      optimizer: any optax transformation.
      begin: `params -> params` of what has been drawn, once; None to begin with that.
    """

    init: Callable[[jax.Array], PyTree]
    loss: Loss
    score: Callable[[PyTree], dict[str, float]]
    optimizer: optax.GradientTransformation
    begin: Callable[[PyTree], PyTree] | None = None


class Fitted(NamedTuple):
    """The outcome of `fit`: best parameters, their score, and what it took."""

    params: PyTree
    score: Any  # float; float32 [S] for S seeds
    steps: int
    seconds: float  # of training steps, former runs' and compilation included


class Observer:
    """Watches a training. This one ignores everything; see `logs.PhaseLog`."""

    def start(self, step: int) -> None:
        """Receives, once, the number of steps that are done already."""

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Receives metrics every `LOG_STEPS` steps and after every epoch."""


class NonFiniteError(FloatingPointError):
    """A loss or a parameter became NaN or infinite."""


class Interrupted(Exception):
    """A training was asked to stop, and did."""


def fit(
    task: Task,
    frozen: PyTree,
    arrays: PyTree,
    key: jax.Array,
    regime: Regime,
    *,
    mesh: Mesh | None = None,
    directory: str | os.PathLike[str] | None = None,
    observer: Observer | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Fitted:
    """Trains from the last checkpoint on, or from the beginning if there is none.

    Args:
      task: what is trained.
      frozen: variables handed to the loss.
      arrays: training arrays `[N, ...]`, whole on every device of the mesh.
      key: fixes initialisation, data order and every random draw. Keys `[S]` train S
        seeds at once, each as its key alone would, but for products of bfloat16, which
        several kernels at once do not have on CPUs; see `seeds`.
      regime: epochs, batch size and products; the optimizer is the task's.
      mesh: devices that keep the state, each the whole of it.
      directory: of the checkpoints, on a file system that all processes share; if None,
        nothing is saved and nothing resumed.
      observer: of metrics and epochs.
      stop: asked after every step whether to save and stop; see `signals`.

    Raises:
      NonFiniteError: the loss became NaN or infinite.
      Interrupted: `stop` said so; the state is saved if there is a directory.
      OSError: a checkpoint cannot be written.
    """
    observer = observer or Observer()
    examples = len(jax.tree.leaves(arrays)[0])
    epoch_steps, steps = examples // regime.batch_size, regime.steps(examples)
    init_key, order_key, step_key = placement.put_replicated(mesh, _keys(key))
    most = min(steps_per_call(), epoch_steps)

    run = _start(task, init_key, mesh, directory)
    observer.start(run.step)
    run.go_on()
    logged, metrics = run.step, None
    while run.step < steps:
        epoch = run.step // epoch_steps
        epoch_end = min((epoch + 1) * epoch_steps, steps)
        order = _order(order_key, np.int32(epoch), examples)
        while run.step < epoch_end:
            # Only two programs are compiled: `most` steps, and one.
            count = most if run.step + most <= epoch_end else 1
            before, earlier = run.step, metrics
            with regime.precision():
                run.state, metrics = train_steps(
                    run.state,
                    frozen,
                    arrays,
                    order,
                    step_key,
                    loss=task.loss,
                    optimizer=task.optimizer,
                    batch_size=regime.batch_size,
                    count=count,
                )
            if earlier is None:  # the program has been compiled now
                startup.hand_back_memory()
            run.step += count
            if before - logged >= LOG_STEPS and earlier is not None:
                # Metrics of an earlier call, so that the device never waits.
                if (np.asarray(earlier["bad_step"]) >= 0).any():
                    run.require_finite()
                observer.log(before, {"loss": float(np.mean(earlier["loss"]))})
                logged = before
            ends_epoch = run.step == epoch_end
            most_seconds = EPOCH_SAVE_SECONDS if ends_epoch else SAVE_SECONDS
            due, stopping = _agreed(
                (time.perf_counter() - run.saved > most_seconds, stop()),
                ends_epoch or run.step // LOG_STEPS > before // LOG_STEPS,
            )
            if ends_epoch or due or stopping:
                run.pause()
                if ends_epoch:
                    _end_epoch(run, task, observer, metrics)
                if due or stopping or run.step == steps:
                    run.save()
                if stopping:
                    saved = "not" if directory is None else "which is"
                    raise Interrupted(
                        f"stopped at step {run.step} of {steps}, {saved} saved"
                    )
                run.go_on()
    score = np.asarray(run.best.score) if key.ndim else float(run.best.score)
    return Fitted(run.best.params, score, steps, run.seconds)


@dataclasses.dataclass
class _Run:
    """A training under way.

    Attributes:
      state, best: what a checkpoint holds.
      step: number of steps that are done, as in `state`.
      seconds: spent on steps, up to `started`.
      directory: of the checkpoints, if any.
      saved_step: step of the last checkpoint, 0 without one.
      started: time of `go_on`.
      saved: time of the last checkpoint, or of the start.
    """

    state: TrainState
    best: Best
    step: int
    seconds: float
    directory: str | os.PathLike[str] | None
    saved_step: int
    started: float = 0.0
    saved: float = dataclasses.field(default_factory=time.perf_counter)

    def go_on(self) -> None:
        """Starts the clock of steps, after a pause or the first time."""
        self.started = time.perf_counter()

    def pause(self) -> None:
        """Waits for the device and counts the time since `started`."""
        jax.block_until_ready(self.state)
        self.seconds += time.perf_counter() - self.started

    def save(self) -> None:
        """Saves a checkpoint of this step unless there is one."""
        if self.step == self.saved_step:
            return
        self.require_finite()
        if self.directory is not None:
            content = (self.state, self.best)
            checkpoints.save(self.directory, self.step, content, seconds=self.seconds)
            self.saved_step = self.step
        self.saved = time.perf_counter()

    def require_finite(self) -> None:
        """Raises NonFiniteError if the state must not be saved."""
        kept = (
            f"the last good checkpoint, step {self.saved_step}, is kept in "
            f"{self.directory}"
            if self.saved_step
            else "there is no checkpoint yet"
        )
        if (bad := int(np.asarray(self.state.bad_step).max())) >= 0:
            raise NonFiniteError(f"loss: not finite at step {bad}; {kept}")
        if not _all_finite(self.state.params):
            raise NonFiniteError(
                f"params: not finite after step {self.step - 1}; {kept}"
            )


def _start(
    task: Task,
    init_key: jax.Array,
    mesh: Mesh | None,
    directory: str | os.PathLike[str] | None,
) -> _Run:
    """Returns the run of the newest checkpoint, or a fresh one."""
    init = functools.partial(initial_state, task.init, task.optimizer)
    fresh = _for_seeds(init, init_key)
    restored = None
    if directory is not None:
        like = jax.eval_shape(fresh, init_key)
        restored = checkpoints.restore(directory, like)
    step, seconds = (restored.step, restored.seconds) if restored else (0, 0.0)
    processes.require_same(
        "workdir", step, "one on a file system that all processes share accepted"
    )
    if restored:
        state, best = placement.put_replicated(mesh, restored.state)
    else:
        begin = jax.jit(lambda key: placement.replicated(mesh, fresh(key)))
        state, best = begin(init_key)
        if task.begin is not None:
            each = [task.begin(params) for params in _of_seeds(state.params, best)]
            params = jax.tree.map(lambda *x: jnp.stack(x), *each)
            params = jax.tree.map(lambda x, y: x.reshape(y.shape), params, state.params)
            # Copied: the state's own buffers are donated to the first step.
            best = best._replace(params=jax.tree.map(jnp.copy, params))
            state = state._replace(params=params)
    return _Run(state, best, step, seconds, directory, saved_step=step)


def _for_seeds(f: Callable[[jax.Array], Any], key: jax.Array) -> Callable:
    """Returns `f` for one key, or mapped over the keys of several seeds."""
    return jax.vmap(f) if key.ndim else f


def seed_of(tree: PyTree, i: Any) -> PyTree:
    """Returns the part of the i-th of several seeds, whose axis is the first one."""
    return jax.tree.map(lambda leaf: leaf[i], tree)


def _of_seeds(params: PyTree, best: Best) -> list[PyTree]:
    """Returns the parameters of each seed; those of one alone have no axis of seeds."""
    return [seed_of(params, i) for i in np.ndindex(best.score.shape)]


@jax.jit
def _all_finite(tree: PyTree) -> jax.Array:
    """Returns whether all numbers are finite, bool `[]`."""
    return jnp.stack([jnp.isfinite(x).all() for x in jax.tree.leaves(tree)]).all()


@jax.jit
def _keys(key: jax.Array) -> tuple[jax.Array, ...]:
    """Returns the keys of initialisation, of data order and of random draws."""
    keys = _for_seeds(lambda key: jax.random.split(key, 3), key)(key)
    return tuple(keys[..., i] for i in range(3))


@functools.partial(jax.jit, static_argnames="examples")
def _order(key: jax.Array, epoch: jax.Array, examples: int) -> jax.Array:
    """Returns the order of the training examples in an epoch, int32 `[N]`."""
    one = lambda key: jax.random.permutation(jax.random.fold_in(key, epoch), examples)
    return _for_seeds(one, key)(key)


def _agreed(wishes: tuple[bool, bool], may_ask: bool) -> tuple[bool, ...]:
    """Returns for each wish whether any process has it.

    Clocks and signals of several processes differ and their steps must not, so a wish
    counts only where they may ask each other.
    """
    if jax.process_count() == 1:
        return wishes
    return tuple(may_ask and processes.any_process(wish) for wish in wishes)


def _end_epoch(run: _Run, task: Task, observer: Observer, metrics: Any) -> None:
    """Scores the parameters, keeps the best ones, and logs."""
    run.require_finite()
    params = _of_seeds(run.state.params, run.best)
    scored = [task.score(of_seed) for of_seed in params]
    scores = np.asarray([of_seed[SCORE] for of_seed in scored], np.float32)
    scores = scores.reshape(run.best.score.shape)
    run.best = keep_better(run.best, scores, run.state.params)
    means = {name: float(np.mean([x[name] for x in scored])) for name in scored[0]}
    observer.log(run.step, {"loss": float(np.mean(metrics["loss"])), **means})
