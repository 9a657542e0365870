"""A sweep over Ray: its cells in processes of their own, on this or other machines."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import Any

import jax

from coded_jax.checks import first_line
from coded_jax.runs.sweeps import Cell, CellResult, Sweep, run_cell
from coded_jax.service.cluster import accelerators, import_ray

PREALLOCATE = "XLA_PYTHON_CLIENT_PREALLOCATE"


def run_with_ray(
    cells: Sequence[Cell], sweep: Sweep, jobs: int
) -> Iterator[CellResult]:
    """Yields the result of each cell, in the order in which they end.

    Base models are trained first, once each, so that no two cells train the same one,
    and in processes of their own too: this one leaves the accelerators to them.

    `cluster.connect` has joined or started the cluster, whose machines find the sweep's
    folder and the data at the same path. A cell whose process dies has failed; a later
    sweep goes on from its last checkpoint.

    Args:
      cells: that are run.
      sweep: of which they are a part.
      jobs: cells at the same time; each has its part of the cores, and an accelerator
        of its own or its part of one.
    """
    ray = import_ray()
    chips = int(ray.cluster_resources().get("TPU", 0))
    jobs = min(jobs, chips) if chips else jobs  # a TPU serves one process at a time
    options = {"num_cpus": 1, "max_retries": 0, "max_calls": 1, **accelerators(jobs)}
    cache = jax.config.jax_compilation_cache_dir

    def start(cell: Cell, jobs: int, base_alone: bool = False) -> Any:
        # XLA's threads, and GPU memory as it is needed, since others use the same GPU.
        variables = {
            "NPROC": str(max(1, (os.cpu_count() or 1) // jobs)),
            PREALLOCATE: os.environ.get(PREALLOCATE, "false"),
        }
        task = ray.remote(runtime_env={"env_vars": variables}, **options)(_run)
        return task.remote(cell, sweep, base_alone, cache)

    of_base: dict[str, list[Cell]] = {}
    for cell in cells:
        of_base.setdefault(sweep.base_dir(cell.config), []).append(cell)
    for sharing in of_base.values():
        for cell in sharing:  # the first one that can
            with contextlib.suppress(ray.exceptions.RayError):
                if not ray.get(start(cell, 1, base_alone=True)).error:
                    break
    waiting, running = list(cells), {}
    while waiting or running:
        while waiting and len(running) < jobs:
            cell = waiting.pop(0)
            running[start(cell, jobs)] = cell
        (reference,), _ = ray.wait(list(running), num_returns=1)
        cell = running.pop(reference)
        try:
            yield ray.get(reference)
        except ray.exceptions.RayError as problem:
            reason = first_line(problem) or "its process has died"
            yield CellResult(cell, None, f"{type(problem).__name__}: {reason}")


def _run(cell: Cell, sweep: Sweep, base_alone: bool, cache: str | None) -> CellResult:
    """Runs a cell in a process of Ray's."""
    from coded_jax.cpu_kernels import lowering
    from coded_jax.devices import startup

    lowering.install()
    if sweep.places.devices is not None:
        startup.offer_cpu_devices(sweep.places.devices)
    startup.keep_memory()
    startup.run_one_by_one()
    with contextlib.suppress(ValueError):  # of another machine's folder
        startup.keep_compilations(cache)
    return run_cell(cell, sweep, base_alone=base_alone)
