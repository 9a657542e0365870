"""Starting a service: the registry of engines, and `serve`."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

from coded_jax.checks import require
from coded_jax.runs.coded_model import CodedModel
from coded_jax.runs.load import load
from coded_jax.serving import local, ray_workers, spmd
from coded_jax.serving.config import ServeConfig
from coded_jax.serving.engine import EngineKind
from coded_jax.serving.faults import Faults, with_faults
from coded_jax.serving.service import Service

ENGINES: dict[str, EngineKind] = {
    "local": local.ENGINE,
    "ray": ray_workers.ENGINE,
    "spmd": spmd.ENGINE,
}
OF_SERVICE = {"batches", "deadline", "in_flight", "queue"}
"""Settings that all engines accept."""


def serve(
    run: str | os.PathLike | CodedModel,
    engine: str = "local",
    *,
    faults: Faults | None = None,
    **settings: Any,
) -> Service:
    """Starts workers for a coded model, and responds to requests with them.

    Args:
      run: the model, or the workdir of a finished run.
      engine: `"local"`, a device of this host for each piece; `"ray"`, a process for
        each piece, on this or other machines; `"spmd"`, one program over all devices,
        which waits for the slowest.
      faults: that the workers meet on purpose.
      settings: fields of `ServeConfig`; those that the engine does not accept keep
        their defaults.

    Raises:
      ValueError: an argument is out of range, or the run is not finished.
      ImportError: Ray is missing.
      RuntimeError: a worker does not start.
    """
    require("engine", engine, engine in ENGINES, f"one of {list(ENGINES)}")
    kind, config = ENGINES[engine], _config(settings)
    for field in dataclasses.fields(config):
        name, value = field.name, getattr(config, field.name)
        accepted = value == field.default or name in OF_SERVICE | kind.accepts
        require(name, value, accepted, f"none with the engine {engine!r}")
    model = (
        run
        if isinstance(run, CodedModel)
        else load(run, config.devices if kind.spread else 1)
    )
    known = "a model with results, as load and protect return it, which calibrate it,"
    require("run", "one without results", model.results is not None, known)
    _require_batches(model, config.batches)
    started = kind.start(model, config)
    try:
        if faults is not None:
            started = with_faults(started, faults, model.pipeline.n)
        service = Service(
            model, started, config.deadline, config.in_flight, config.queue
        )
        for batch in config.batches:
            service.warm_up(batch)
    except BaseException:
        started.close()
        raise
    return service


def _config(settings: dict[str, Any]) -> ServeConfig:
    names = [field.name for field in dataclasses.fields(ServeConfig)]
    unknown = sorted(settings.keys() - set(names))
    require("settings", unknown, not unknown, f"some of {names}")
    return ServeConfig(**settings)


def _require_batches(model: CodedModel, batches: tuple[int, ...]) -> None:
    group = model.pipeline.images_per_input
    fits = bool(batches) and all(b >= 1 and b % group == 0 for b in batches)
    accepted = "positive numbers" if group == 1 else f"multiples of {group}"
    require("batches", batches, fits, accepted)
