"""The training step: one compiled and donated update of the state, or several."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from coded_jax.types import PyTree

CALL_STEPS = 50
# Before 0.8.2, jax has computed wrong numbers on a CPU where programs were donated
# their inputs: of a systematic MLP code's steps from the fourth on, by 1 % of the loss.
# Not everywhere: seen with 0.7.2 on one machine, and not on another.
DONATES = jax.__version_info__ >= (0, 8, 2)
# Before 0.8, jax refuses the gradient of a convolution under `vmap` where its operands
# say on which devices they are (NotImplementedError).
MAPS_SEEDS = jax.__version_info__ >= (0, 8)


class TrainState(NamedTuple):
    """The state that a training step updates."""

    step: jax.Array  # int32 [], steps done
    params: PyTree
    opt_state: PyTree
    bad_step: jax.Array  # int32 [], first step with a non-finite loss, -1 if none


class Best(NamedTuple):
    """The parameters of the epoch with the best validation score, and that score."""

    score: jax.Array  # float32 []
    params: PyTree


def steps_per_call() -> int:
    """Returns the number of steps that one call takes.

    It is one on a CPU: XLA's CPU backend computes gradients of convolutions inside a
    loop by a naive kernel (8 steps: 6 to 9 s in `lax.scan`, 0.2 to 0.4 s in a Python
    loop, on 2 cores). It is `CALL_STEPS` elsewhere, where the host could not keep the
    device busy.
    """
    return 1 if jax.default_backend() == "cpu" else CALL_STEPS


@functools.partial(
    jax.jit,
    static_argnames=("loss", "optimizer", "batch_size", "count"),
    donate_argnames="state" if DONATES else (),
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
    """Takes steps, each on the next `batch_size` rows of this epoch's order.

    Args:
      state: donated, see `DONATES`; with a leading axis of seeds, as `order` and `key`
        have then, each seed is trained by itself.
      frozen: variables that the loss uses but that are not trained.
      arrays: whole training arrays `[N, ...]`, resident on the device.
      order: int32 `[N]`, this epoch's permutation.
      key: of the whole fit; each step's own key is derived from it.
      loss, optimizer: as in `loop.Task`.
      batch_size: B.
      count: number of steps.

    Returns:
      The next state, and the last step's metrics `loss` float32 and `bad_step` int32.
    """
    fixed = {"loss": loss, "optimizer": optimizer, "batch_size": batch_size}
    go = functools.partial(train_steps, frozen=frozen, arrays=arrays, **fixed)
    if state.step.ndim:
        of_seed = lambda *own: go(own[0], order=own[1], key=own[2], count=count)
        return jax.vmap(of_seed)(state, order, key)
    if count > 1:
        once = lambda state, _: go(state, order=order, key=key)
        state, metrics = jax.lax.scan(once, state, length=count)
        return state, jax.tree.map(lambda values: values[-1], metrics)
    start = state.step % (order.size // batch_size) * batch_size
    rows = jax.lax.dynamic_slice_in_dim(order, start, batch_size)
    batch = jax.tree.map(lambda a: a[rows], arrays)
    step_key = jax.random.fold_in(key, state.step)
    loss_and_gradient = jax.value_and_grad(loss, has_aux=True)
    (value, updated_stats), gradient = loss_and_gradient(
        state.params, frozen, batch, step_key
    )
    updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
    bad = (state.bad_step < 0) & ~jnp.isfinite(value)
    bad_step = jnp.where(bad, state.step, state.bad_step)
    params = _with_stats(optax.apply_updates(state.params, updates), updated_stats)
    next_state = TrainState(state.step + 1, params, opt_state, bad_step)
    return next_state, {"loss": value, "bad_step": bad_step}


def _with_stats(params: PyTree, updated_stats: PyTree) -> PyTree:
    """Returns `params` with the leaves of `updated_stats` in place of its own."""
    if isinstance(updated_stats, tuple):  # of coded stages
        return (*map(_with_stats, params, updated_stats), *params[len(updated_stats) :])
    if not isinstance(updated_stats, dict):
        return updated_stats
    replaced = {
        name: _with_stats(params[name], value) for name, value in updated_stats.items()
    }
    return {**params, **replaced} if replaced else params


def initial_state(
    init: Callable[[jax.Array], PyTree],
    optimizer: optax.GradientTransformation,
    key: jax.Array,
) -> tuple[TrainState, Best]:
    """Returns the content of a checkpoint before the first step."""
    params = _strong(init(key))
    opt_state = _strong(optimizer.init(params))
    none = jnp.asarray(-1, jnp.int32)
    state = TrainState(jnp.asarray(0, jnp.int32), params, opt_state, none)
    # Copied: the state's own buffers are donated to the first step.
    best = jax.tree.map(jnp.copy, params)
    return state, Best(jnp.asarray(-jnp.inf, jnp.float32), best)


def _strong(tree: PyTree) -> PyTree:
    """Returns arrays whose types are not weak.

    Else each of the first steps, which make some more leaves strong, is a program of
    its own: a step would be compiled three times.
    """
    return jax.tree.map(lambda x: jax.lax.convert_element_type(x, x.dtype), tree)


@functools.partial(jax.jit, donate_argnames="best" if DONATES else ())
def keep_better(best: Best, scores: jax.Array, params: PyTree) -> Best:
    """Returns the better of the best and the new parameters, of equals the new ones.

    Args:
      best: donated, see `DONATES`.
      scores: of the new parameters, float32 `[]`; `[S]` of S seeds, each of which keeps
        its own best.
      params: the new parameters, structured as `best.params`.
    """
    better = scores >= best.score

    def keep(old: jax.Array, new: jax.Array) -> jax.Array:
        shape = better.shape + (1,) * (new.ndim - better.ndim)
        return jnp.where(better.reshape(shape), new, old)

    return jax.tree.map(keep, best, Best(scores, params))
