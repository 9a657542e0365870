"""The jobs of the benchmark in JAX, done by this project."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from benchmarks.subjects import Prepared, Subject
from benchmarks.tables import BASE, CODE, NOTHING_LOST, ONE_LOST
from coded_jax.codes import erasures
from coded_jax.devices import startup
from coded_jax.inference import pipeline
from coded_jax.runs import phases
from coded_jax.runs.build import uncoded_pipeline
from coded_jax.training import exact_targets, steps, tasks
from coded_jax.training.loop import Task
from coded_jax.types import PyTree


def base(s: Subject, batch: int) -> dict[str, Prepared]:
    """Prepares training steps of the base model, as `training.loop.fit` does them."""
    data, optimizer = s.dataset, _optimizer(s, phases.BASE)
    uncoded = uncoded_pipeline(s.config, s.pipeline.examples)
    task = tasks.base_task(uncoded, data, optimizer)
    arrays = tasks.device_arrays(None, data.train)
    return {BASE: _steps(task, {}, arrays, s.frozen, batch)}


def code(s: Subject, batch: int) -> dict[str, Prepared]:
    """Prepares training steps of the code, as `training.loop.fit` does them."""
    coded, data = s.pipeline, s.dataset
    arrays = tasks.device_arrays(None, data.train)
    arrays = exact_targets.with_targets(coded, s.frozen, arrays)
    optimizer = _optimizer(s, CODE)
    options = {"config": s.config, "patterns": [()]}
    task = tasks.code_task(coded, s.frozen, data, optimizer, **options)
    return {CODE: _steps(task, s.frozen, arrays, s.params, batch)}


def inference(s: Subject, batch: int) -> dict[str, Prepared]:
    """Prepares inferences with nothing lost and with the first data piece lost."""
    masks = {
        name: jax.device_put(erasures.available(lost, s.pipeline.n))
        for name, lost in ((NOTHING_LOST, ()), (ONE_LOST, (0,)))
    }
    images = jax.device_put(s.dataset.train.images[:batch])
    whole = jax.jit(functools.partial(pipeline.infer, s.pipeline))
    program, seconds = compiled(whole, s.frozen, s.params, images, masks[NOTHING_LOST])

    def job(calls: int, mask: jax.Array) -> None:
        for _ in range(calls):  # each waited for: the latency of a request
            jax.block_until_ready(program(s.frozen, s.params, images, mask))

    return {
        name: Prepared(functools.partial(job, mask=mask), seconds)
        for name, mask in masks.items()
    }


def compiled(f: Callable, *args: Any, **static: Any) -> tuple[Callable, float]:
    """Compiles a jitted function for the arguments of a call, and returns it with the
    seconds that this took. Those that are `static` are not given again in calls."""
    start = time.perf_counter()
    program = f.lower(*args, **static).compile()
    return program, time.perf_counter() - start


def _optimizer(s: Subject, phase: str) -> optax.GradientTransformation:
    return phases.regime_of(s.config, phase).optimizer(len(s.dataset.train.labels))


def _steps(
    task: Task, frozen: PyTree, arrays: PyTree, params: PyTree, batch: int
) -> Prepared:
    """Prepares training steps of a task, that begin with some parameters."""

    @jax.jit  # as in `fit`: each operation alone is a program that stays in memory
    def begin(params: PyTree) -> tuple:
        init = lambda key: jax.tree.map(jnp.copy, params)
        state, _ = steps.initial_state(init, task.optimizer, jax.random.key(0))
        examples = len(jax.tree.leaves(arrays)[0])
        return state, jax.random.permutation(jax.random.key(2), examples)

    state, order = begin(params)
    key, count = jax.random.key(3), steps.steps_per_call()
    program, seconds = compiled(
        steps.train_steps,
        *(state, frozen, arrays, order, key),
        loss=task.loss,
        optimizer=task.optimizer,
        batch_size=batch,
        count=count,
    )
    startup.hand_back_memory()  # as `fit` does

    def job(calls: int) -> None:
        nonlocal state
        for _ in range(calls):
            state, *_ = program(state, frozen, arrays, order, key)
        jax.block_until_ready(state)

    return Prepared(job, seconds, count)
