"""First k of n: answers as soon as enough workers have, see `serve`."""

from __future__ import annotations

import os
from typing import Any

from coded_jax.runs.coded_model import CodedModel, load
from coded_jax.serving.faults import Disturbance as Disturbance
from coded_jax.serving.faults import Fault as Fault
from coded_jax.serving.faults import Faults as Faults
from coded_jax.serving.first_k import SHORTFALLS as SHORTFALLS
from coded_jax.serving.first_k import FirstK as FirstK
from coded_jax.serving.pool import LOSSES as LOSSES
from coded_jax.serving.pool import Pool as Pool
from coded_jax.serving.rounds import Closed as Closed
from coded_jax.serving.rounds import NotEnoughResults as NotEnoughResults
from coded_jax.serving.service import Answer as Answer
from coded_jax.serving.service import Overloaded as Overloaded
from coded_jax.serving.service import Service as Service
from coded_jax.serving.spmd import Spmd as Spmd

ENGINES = ("local", "ray", "spmd")


def serve(
    run: str | os.PathLike | CodedModel,
    engine: str = "local",
    *,
    batches: tuple[int, ...] = (1,),
    devices: int | None = None,
    address: str | None = None,
    shortfall: str = "error",
    hedge_after: float | None = None,
    faults: Faults | None = None,
    patience: float = 5.0,
    **settings: Any,
) -> Service:
    """Starts workers for a finished run, and answers requests with them.

    Args:
      run: its workdir; or, for engines of this process, what `load` or `protect` gave.
      engine: `"local"`, a device of this host for every piece; `"ray"`, a process for
        every piece, on this or other machines; `"spmd"`, one program over all devices,
        which waits for the slowest.
      batches: images in a request, all numbers that are accepted; each a multiple of
        the images that are coded together. They are compiled before this returns.
      devices: how many of this host to use, at most; all if None.
      address: `host:port` of a Ray cluster; if None, one of this host is started.
      shortfall, hedge_after, faults: see `FirstK`.
      patience: see `Pool`; more than what a worker is delayed.
      settings: of `Service`.

    Raises:
      ValueError: an argument is out of range, or the run is not finished.
      ImportError: Ray is missing.
      RuntimeError: a worker does not start.
    """
    if engine not in ENGINES:
        raise ValueError(f"engine: {engine!r} given, {list(ENGINES)} accepted")
    if engine != "ray" and address is not None:
        raise ValueError(f"address: {address!r} given, none accepted by {engine}")
    if shortfall not in SHORTFALLS:
        raise ValueError(f"shortfall: {shortfall!r} given, {list(SHORTFALLS)} accepted")
    if engine == "spmd" and (hedge_after is not None or shortfall != "error"):
        raise ValueError("hedge_after or shortfall: given, none accepted by spmd")
    if engine == "ray" and devices is not None:
        raise ValueError(f"devices: {devices} given, none accepted by ray")
    loaded = isinstance(run, CodedModel)
    if engine == "ray" and loaded:
        raise ValueError("run: a model given, a workdir accepted, which workers load")
    model = run if loaded else load(run, 1 if engine != "spmd" else devices)
    batches, group = tuple(dict.fromkeys(batches)), model.pipeline.group
    if not batches or any(batch < 1 or batch % group for batch in batches):
        accepted = "positive numbers" if group == 1 else f"multiples of {group}"
        raise ValueError(f"batches: {batches} given, {accepted} accepted")
    if engine == "spmd":
        service = Service(model, Spmd(model, faults), **settings)
    else:
        pool = _pool(run, model, engine, batches, devices, address, patience)
        try:
            first = FirstK(model, pool, shortfall, hedge_after, faults)
            service = Service(model, first, **settings)
        except BaseException:
            pool.close()
            raise
    try:
        for batch in batches:
            service.warm_up(batch)
        service.engine.begin_disturbance()
    except BaseException:
        service.close()
        raise
    return service


def _pool(run, model, engine, batches, devices, address, patience) -> Pool:
    if engine == "local":
        from coded_jax.serving.local import local_workers

        return Pool(local_workers(model, devices), patience)
    from coded_jax.devices import cluster
    from coded_jax.serving.ray_workers import ray_workers

    cluster.connect(address, model.pipeline.n)
    try:
        workers = ray_workers(run, model, batches)
        return Pool(workers, patience, cluster.STARTUP, cluster.disconnect)
    except BaseException:
        cluster.disconnect()
        raise
