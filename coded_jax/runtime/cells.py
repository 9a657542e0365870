"""The cells of a sweep in processes of their own, on this or other machines, by Ray."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import Any

import jax

from coded_jax.geometry import first_line
from coded_jax.runtime.cluster import accelerators, import_ray
from coded_jax.sweeps import Cell, Outcome, Places, run_cell


def run_with_ray(cells: Sequence[Cell], places: Places, jobs: int) -> Iterator[Outcome]:
    """The outcome of each cell, in the order in which they are done.

    `runtime.cluster.connect` has joined or started the cluster. Every machine of it
    finds the sweep's folder, and the data, at the same path. A cell whose process dies
    has failed; a later sweep goes on from its last checkpoint.

    Args:
      cells: what to run; their base models have been trained.
      places: where.
      jobs: cells at the same time; each has its part of the cores, and an accelerator
        of its own or its part of one.
    """
    ray = import_ray()
    cores = max(1, (os.cpu_count() or 1) // jobs)
    environment = {"env_vars": {"NPROC": str(cores)}}  # XLA's threads
    options = {"num_cpus": 1, "max_retries": 0, "max_calls": 1, **accelerators(jobs)}
    task = ray.remote(runtime_env=environment, **options)(_run)
    waiting, running = list(cells), {}
    cache = jax.config.jax_compilation_cache_dir
    while waiting or running:
        while waiting and len(running) < jobs:
            cell = waiting.pop(0)
            running[task.remote(cell, places, cache)] = cell
        (reference,), _ = ray.wait(list(running), num_returns=1)
        cell = running.pop(reference)
        try:
            yield ray.get(reference)
        except ray.exceptions.RayError as problem:
            told = first_line(problem) or "its process has died"
            yield Outcome(cell, None, f"{type(problem).__name__}: {told}")


def _run(cell: Cell, places: Places, cache: str | None) -> Any:
    from coded_jax import startup

    if places.devices is not None:
        startup.offer_cpu_devices(places.devices)
    startup.keep_memory()
    with contextlib.suppress(ValueError):  # of another machine's folder
        startup.keep_compilations(cache)
    return run_cell(cell, places)
