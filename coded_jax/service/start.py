"""The registry of engines, and `serve`, which starts a service with one."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from coded_jax.checks import require
from coded_jax.codes import AnyCode
from coded_jax.runs.coded_model import CodedModel
from coded_jax.runs.load import load
from coded_jax.service.byzantine.detection import Check, load_check
from coded_jax.service.config import ServeConfig
from coded_jax.service.engine import Engine
from coded_jax.service.faults import Faults, with_faults
from coded_jax.service.first_k import FirstK
from coded_jax.service.local import local_workers
from coded_jax.service.pool import Pool
from coded_jax.service.ray_workers import ray_workers
from coded_jax.service.service import Service
from coded_jax.service.spmd import Spmd
from coded_jax.types import BaseModel, PyTree

OF_CLUSTERS = frozenset({"address", "reconnect_for"})
OF_POOLS = {"shortfall", "hedge_after", "patience", "spares", "strikes", "check_wait"}


class EngineKind(NamedTuple):
    """An entry of the registry of engines.

    Attributes:
      ignores: options of `serve` that mean nothing to it.
      workers: `(model, config) -> workers`, for each piece and spares; None where one
        program computes a model that is loaded onto all devices.
      processes: whether its workers are processes, which can be killed and frozen.
    """

    ignores: frozenset[str]
    workers: Callable[[CodedModel, ServeConfig], Sequence[Any]] | None = None
    processes: bool = False

    def start(
        self, model: CodedModel, config: ServeConfig, check: Check | None
    ) -> Engine:
        """Starts an engine, which checks results where there is a check."""
        if self.workers is None:
            return Spmd(model)
        workers = self.workers(model, config)
        supervisor = getattr(workers[0], "shared", None)
        return FirstK(model, Pool(workers, config), config, check, supervisor)


ENGINES = {
    "local": EngineKind(OF_CLUSTERS, local_workers),
    "ray": EngineKind(frozenset({"devices"}), ray_workers, processes=True),
    "spmd": EngineKind(OF_CLUSTERS | OF_POOLS | {"faults"}),
}


def serve(
    run: str | os.PathLike | CodedModel,
    engine: str = "local",
    *,
    base: BaseModel | None = None,
    variables: PyTree | None = None,
    code: AnyCode | None = None,
    faults: Faults | None = None,
    check: Check | None = None,
    **settings: Any,
) -> Service:
    """Starts workers for a coded model, and responds to requests with them.

    Args:
      run: the model, or the workdir of a finished run.
      engine: `"local"`, a device of this host for each piece; `"ray"`, a process for
        each piece, on this or other machines; `"spmd"`, one program over all devices,
        which waits for the slowest.
      base, variables, code: of a workdir that cannot hold them, see `load`.
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
    options = {**settings, "faults": faults}
    for name in sorted(kind.ignores & options.keys()):
        unset = options[name] == getattr(ServeConfig, name, None)
        require(name, options[name], unset, f"none with the engine {engine!r}")
    checked = config.check_wait is not None
    has_check = check is not None or (checked and not isinstance(run, CodedModel))
    accepted = "one with check_wait, or a workdir with one, and none without"
    require("check", check and "one", checked == has_check, accepted)
    own = {"base": base, "variables": variables, "code": code}
    if isinstance(run, CodedModel):
        model, given = run, [name for name in own if own[name] is not None]
        require(", ".join(given), "a value", not given, "none beside a model")
    else:
        model = load(run, 1 if kind.workers else config.devices, **own)
    accepted = "a model with results, as load and protect return it,"
    require("run", "one without results", model.results is not None, accepted)
    config = _with_batches(config, model.pipeline.images_per_input)
    if faults is not None:  # refused before a worker starts
        faults.of_request(0, model.pipeline.n + config.spares)

    def start(model: CodedModel) -> Engine:
        own = check
        if own is not None:
            own.require_of(model)
        elif checked:
            own = load_check(str(run), model)
        started = kind.start(model.settled(), config, own)
        return started if faults is None else with_faults(started, faults)

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
