"""Measures every code of a run under every erasure pattern, for every seed.

What is measured of one code, seed and kind of losses is kept in the workdir: an
evaluation that is stopped goes on from there, and one with more seeds or baselines
measures what is new.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax

from coded_jax.codes import erasures
from coded_jax.cpu_kernels import lowering
from coded_jax.devices import processes
from coded_jax.evaluation import confidence, pattern_accuracy
from coded_jax.evaluation.pattern_accuracy import PatternAccuracy
from coded_jax.evaluation.predictions import TrainedPipeline
from coded_jax.runs import fingerprints, provenance, workdir
from coded_jax.runs.coded_model import CodedModel
from coded_jax.runs.evaluate import measure_parts
from coded_jax.runs.phases import Watch
from coded_jax.runs.prepare import Experiment
from coded_jax.training import tasks
from coded_jax.training.loop import Fitted, Interrupted
from coded_jax.types import PyTree


class Measured(NamedTuple):
    """The measurements of a code of one seed.

    Attributes:
      patterns: the accuracy under each pattern.
      confidence: as of `confidence.study`; empty where it is not studied.
      seconds: that they took, perhaps in a former process.
    """

    patterns: list[PatternAccuracy]
    confidence: dict[str, Any]
    seconds: float


def measure_codes(
    experiment: Experiment,
    frozen: PyTree,
    codes: dict[str, list[Fitted]],
    watch: Watch,
) -> tuple[float, dict[str, dict[str, list[Measured]]]]:
    """Tries every pattern with the code and with each baseline, for every seed.

    What a former process has measured is taken from the workdir, unless
    `keep_measured` is off or the code has uncommitted changes. The confidence of
    classes is studied under the run's own losses alone.

    Returns:
      The base model's accuracy on the part that is evaluated, and measurements of the
      seeds by losses and name of the code.

    Raises:
      Interrupted: the run was asked to stop.
      OSError: the workdir can no longer be written to.
    """
    config, inputs = experiment.config, experiment.examples
    patterns = erasures.patterns_up_to(config.n, config.most_tried)
    splits = (inputs.validation, getattr(inputs, config.evaluated))
    mesh = experiment.pipeline.mesh
    validation, scored = (tasks.device_arrays(mesh, split) for split in splits)
    circumstances = describe_circumstances(experiment)
    folder = experiment.folder
    # Either all processes look for what is kept, or none.
    if processes.any_process(circumstances is None) or circumstances is None:
        folder, circumstances = None, []
    if folder:
        arrays = [array for split in splits for array in (split.images, split.labels)]
        arrays += jax.tree.leaves(frozen)
        circumstances = [fingerprints.digest(circumstances, arrays), str(patterns)]
    kinds = (config.stage_losses, *config.other_stage_losses)
    every = [
        (losses, name, seed)
        for name, seeds in codes.items()
        for seed in range(len(seeds))
        for losses in kinds
    ]
    row = watch.table.begin("evaluation", len(every))
    measured = {losses: {name: [] for name in codes} for losses in kinds}
    for ready, (losses, name, seed) in enumerate(every, 1):
        params = codes[name][seed].params
        code = TrainedPipeline(experiment.pipelines[name], frozen, params)
        file, digest, kept = None, "", None
        if folder:
            phase = workdir.phase_of(name, seed)
            file = folder / workdir.MEASURED / f"{phase}_{losses}.json"
            function = experiment.fingerprints.get(f"baseline_{name}", "")
            texts = [*circumstances, losses, name, function]
            digest = fingerprints.digest(texts, jax.tree.leaves(params))
            kept = read(file, digest)
        if processes.any_process(kept is None) or kept is None:
            begun, study = time.perf_counter(), {}
            if losses == config.stage_losses and not experiment.dataset.values:
                accuracies, study = confidence.study(
                    code, validation, scored, patterns, losses
                )
            else:
                model = CodedModel(*code)
                _, accuracies = measure_parts(model, splits[1:], patterns, losses)
            kept = Measured(accuracies, study, time.perf_counter() - begun)
            if file is not None:
                write(file, digest, kept)
        measured[losses][name].append(kept)
        watch.table.update(row.id, completed=ready)
        if processes.any_process(watch.stop()):
            raise Interrupted("stopped in the evaluation, saved up to there")
    accuracy = pattern_accuracy.base_accuracy(experiment.pipeline, frozen, scored)
    return accuracy, measured


def describe_circumstances(experiment: Experiment) -> list[str] | None:
    """Returns texts of all that measurements depend on beside variables and images:
    settings, versions, precision, device and kernels; None where nothing is kept, as
    the settings say or since the code has changes that no commit has."""
    version, backend = provenance.code_version(), jax.default_backend()
    if version is None or not experiment.config.keep_measured:
        return None
    settings = experiment.config.to_flags() | experiment.fingerprints
    return [
        version,
        str(workdir.versions()),
        str(jax.config.jax_default_matmul_precision),
        str(jax.config.jax_enable_x64),
        f"{backend} {jax.devices()[0].device_kind}",
        lowering.convolutions() if backend == "cpu" else "",
        *(
            f"{name}={text}"
            for name, text in settings.items()
            if name not in workdir.EXTENT and not name.startswith("baseline_")
        ),
    ]


def read(path: Path, digest: str) -> Measured | None:
    """Reads what `write` has kept under this digest; None if it has not, or the file is
    damaged."""
    try:
        kept = json.loads(path.read_text())
        if kept.pop("digest") != digest:
            return None
        measured = Measured(**kept)
        patterns = [PatternAccuracy(tuple(p[0]), *p[1:]) for p in measured.patterns]
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return measured._replace(patterns=patterns)


def write(path: Path, digest: str, measured: Measured) -> None:
    """Keeps measurements, whole or not at all; of several processes, the lead does.

    Raises:
      OSError: in every process, if it cannot be written.
    """
    text = json.dumps({"digest": digest, **measured._asdict()}) + "\n"

    def write_file() -> None:
        try:
            path.parent.mkdir(exist_ok=True)
            workdir.write_atomically(path, text)
        except OSError as error:
            reason = error.strerror or error
            raise OSError(f"workdir: cannot write {path} ({reason})") from error

    processes.by_lead(write_file)
