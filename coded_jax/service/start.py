"""The registry of engines, and `serve`, which starts a service with one."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from coded_jax.checks import require
from coded_jax.runs.coded_model import CodedModel
from coded_jax.runs.load import load
from coded_jax.service.byzantine.detection import Check, load_check
from coded_jax.service.config import ServeConfig
from coded_jax.service.engine import Engine
from coded_jax.service.faults import Faults, inject
from coded_jax.service.local import local_workers
from coded_jax.service.pool import Pool
from coded_jax.service.ray_workers import ray_workers
from coded_jax.service.service import Service


class EngineKind(NamedTuple):
    """An entry of the registry of engines.

    Attributes:
      workers: `(model, config) -> workers`, for each piece and spares.
      ignores: settings that mean nothing to it.
      processes: whether its workers are processes, which can be killed and frozen.
    """

    workers: Callable[[CodedModel, ServeConfig], Sequence[Any]]
    ignores: frozenset[str]
    processes: bool = False


ENGINES = {
    "local": EngineKind(local_workers, frozenset({"address", "reconnect_for"})),
    "ray": EngineKind(ray_workers, frozenset({"devices"}), processes=True),
}


def serve(
    run: str | os.PathLike | CodedModel,
    engine: str = "local",
    *,
    faults: Faults | None = None,
    check: Check | None = None,
    **settings: Any,
) -> Service:
    """Starts workers for a coded model, and responds to requests with them.

    Args:
      run: the model, or the workdir of a finished run.
      engine: `"local"`, a device of this host for each piece; `"ray"`, a process for
        each piece, on this or other machines.
      faults: that the workers meet on purpose.
      check: of results, with the setting `check_wait`, which says how long more of them
        than are needed are waited for; that of the workdir if None.
      settings: fields of `ServeConfig`; those that the engine ignores keep their
        defaults.

    Raises:
      ValueError: an argument is out of range, or the run is not finished.
      ImportError: Ray is missing.
      RuntimeError: a worker does not start.
    """
    require("engine", engine, engine in ENGINES, f"one of {list(ENGINES)}")
    kind, config = ENGINES[engine], ServeConfig(**settings)
    for name in sorted(kind.ignores & settings.keys()):
        unset = settings[name] == getattr(ServeConfig, name)
        require(name, settings[name], unset, f"none with the engine {engine!r}")
    checked = config.check_wait is not None
    has_check = check is not None or (checked and not isinstance(run, CodedModel))
    accepted = "one with check_wait, or a workdir with one, and none without"
    require("check", check and "one", checked == has_check, accepted)
    model = run if isinstance(run, CodedModel) else load(run, 1)
    accepted = "a model with results, as load and protect return it,"
    require("run", "one without results", model.results is not None, accepted)
    if config.within is not None:
        model = model.stops_within(config.within)
    config = _with_batches(config, model.pipeline.images_per_input)
    if faults is not None:  # refused before a worker starts
        faults.of_request(0, model.pipeline.n + config.spares)

    def start(model: CodedModel) -> Engine:
        own = check
        if own is not None:
            own.require_of(model)
        elif checked:
            own = load_check(str(run), model)
        model = model.settled()
        workers = kind.workers(model, config)
        pool = Pool(workers, config)
        if faults is not None:
            inject(pool, faults)
        supervisor = getattr(workers[0], "shared", None)
        return Engine(model, pool, config, own, supervisor)

    service = Service(start(model), config, start)
    try:
        for batch in config.batches:
            service.warm_up(batch)
    except BaseException:
        service.close()
        raise
    return service


def _with_batches(config: ServeConfig, group: int) -> ServeConfig:
    """Checks the sizes of batches; those that nobody has chosen are made multiples of
    the images that are coded together."""
    batches, most = config.batches, config.max_batch
    if batches == ServeConfig.batches:
        batches = tuple(-(-size // group) * group for size in batches)
    fits = bool(batches) and not any(size % group for size in batches)
    require("batches", batches, fits, f"multiples of {group}")
    largest = max(batches)
    fits = most is None or most <= largest
    require("max_batch", most, fits, f"at most {largest}, the largest of batches,")
    return dataclasses.replace(config, batches=batches)
