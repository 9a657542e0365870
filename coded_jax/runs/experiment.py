"""One experiment from its configuration to `results.json`."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import jax
from rich.console import Console

from coded_jax.devices import processes
from coded_jax.evaluation import pattern_accuracy
from coded_jax.runs import kept_base, measurements, results, workdir
from coded_jax.runs.coded_model import CodedModel
from coded_jax.runs.prepare import Experiment
from coded_jax.runs.progress import LiveTable
from coded_jax.runs.regime import BASE, CODE, regime_of
from coded_jax.runs.results import Finished
from coded_jax.runs.train import Watch, train_code, training_arrays, watching
from coded_jax.training import tasks
from coded_jax.training.loop import Fitted, fit

COMPILING = (
    "/jax/core/compile/jaxpr_to_mlir_module_duration",
    "/jax/core/compile/backend_compile_duration",
)
"""Events of JAX: lowering, and compilation or the reading of a program that the disk
keeps."""


def run(
    experiment: Experiment,
    *,
    console: Console | None = None,
    progress: LiveTable | None = None,
    command: str = "",
) -> CodedModel:
    """Trains base model, code and baselines, tries every pattern, writes the results.

    Whatever a former run of the same experiment finished is taken from its workdir.

    Args:
      experiment: from `prepare`.
      console: where progress is shown; standard error if None.
      progress: of `progress.live_table` that is shown already.
      command: recorded in the results.

    Returns:
      The coded model of the first seed; its `results` are the content of
      `results.json`.

    Raises:
      NonFiniteError, Interrupted: see `training.loop.fit`.
      OSError: the workdir can no longer be written to.
    """
    begun = time.perf_counter()
    config, inputs, pipelines = (
        experiment.config,
        experiment.examples,
        experiment.pipelines,
    )
    with (
        watching(experiment.folder, console, progress) as watch,
        _compile_clock() as compiling,
    ):
        base = train_base(experiment, watch)
        # The same for every code: they differ in their parity pieces only.
        if any(pipeline.learns for pipeline in pipelines.values()):
            arrays = training_arrays(experiment.pipeline, base.params, inputs, config)
        else:
            arrays = tasks.device_arrays(experiment.pipeline.mesh, inputs.train)
        codes = {
            name: train_code(
                pipeline, base.params, inputs, config, watch, arrays=arrays, name=name
            )
            for name, pipeline in pipelines.items()
        }
        del arrays
        measured = measurements.measure_codes(experiment, base.params, codes, watch)
    ended = time.perf_counter()
    seconds = {
        BASE: base.seconds,
        **{name: sum(seed.seconds for seed in seeds) for name, seeds in codes.items()},
        "evaluation": measured.seconds,
    }
    # The wall time of former processes is not known, but that of their steps is.
    resumed = experiment.resumed
    seconds["total"] = sum(seconds.values()) if resumed else ended - experiment.started
    content = results.content(
        Finished(
            experiment,
            base,
            codes,
            measured,
            seconds=seconds,
            start_up={
                "preparation": begun - experiment.started,
                "compilation": sum(compiling),
            },
            command=command,
        )
    )
    if experiment.folder and processes.is_lead():
        workdir.write_results(experiment.folder, content)
    return CodedModel(experiment.pipeline, base.params, codes[CODE][0].params, content)


def train_base(experiment: Experiment, watch: Watch) -> Fitted:
    """Trains the base model, in the folder that runs share if there is one, and copies
    its checkpoints into the workdir; one that is trained already is only scored."""
    config, dataset, pipeline = (
        experiment.config,
        experiment.dataset,
        experiment.uncoded,
    )
    if experiment.variables is not None:
        validation = tasks.device_arrays(pipeline.mesh, dataset.validation)
        score = pattern_accuracy.base_accuracy(
            pipeline, experiment.variables, validation
        )
        return Fitted(experiment.variables, score, 0, 0.0)
    folder, base_folder = experiment.folder, experiment.base_folder
    regime, examples = regime_of(config, BASE), len(dataset.train.labels)
    task = tasks.base_task(
        pipeline,
        dataset,
        regime.optimizer(examples),
        config.augmentation,
        config.label_smoothing,
        kept_base.start_of(config, pipeline.base, dataset, (base_folder, folder)),
    )
    arrays = tasks.device_arrays(pipeline.mesh, dataset.train)
    key = jax.random.fold_in(jax.random.key(config.seed), 0)

    def fit_in(watch: Watch) -> Fitted:
        extent = watch.extent(BASE, regime, pipeline)
        with watch.log(BASE, regime, examples) as log:
            return fit(task, {}, arrays, key, extent, observer=log, stop=watch.stop)

    if folder and base_folder and base_folder != folder:
        if kept_base.is_kept(base_folder):
            kept_base.take(base_folder, folder, config, examples)
        else:
            fit_in(watch._replace(folder=base_folder))
            if processes.is_lead():
                workdir.copy_checkpoints(base_folder, folder, BASE)
            processes.any_process(False)  # the others wait for the copy
    return fit_in(watch)


@contextlib.contextmanager
def _compile_clock() -> Iterator[list[float]]:
    """Yields the seconds of each compilation up to the end of the context, of all
    threads, as JAX's own monitoring tells them."""
    seconds: list[float] = []

    def listen(event: str, duration: float, **_: Any) -> None:
        if event in COMPILING:
            seconds.append(duration)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield seconds
    finally:
        # Not in every version; a clock that nobody reads does no harm.
        if forget := getattr(
            jax.monitoring, "unregister_event_duration_listener", None
        ):
            forget(listen)
