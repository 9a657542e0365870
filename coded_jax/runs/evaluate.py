"""Accuracy under every erasure pattern: of a model, and of all codes of a run.

What is measured of one code, seed and kind of losses of a run is kept in its workdir:
an evaluation that is stopped goes on from there, and one with more seeds or baselines
measures what is new.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from coded_jax.checks import require
from coded_jax.codes import erasures
from coded_jax.cpu_kernels import lowering
from coded_jax.data import groups
from coded_jax.data.user_data import cut, require_split
from coded_jax.devices import placement, processes
from coded_jax.evaluation import confidence, pattern_accuracy, predictions
from coded_jax.evaluation.pattern_accuracy import PatternAccuracy, Spread
from coded_jax.evaluation.predictions import STAGE_LOSSES, Prediction, TrainedPipeline
from coded_jax.runs import provenance, workdir
from coded_jax.runs.coded_model import CodedModel
from coded_jax.runs.phases import Watch
from coded_jax.runs.prepare import Experiment
from coded_jax.training import tasks
from coded_jax.training.loop import Fitted, Interrupted
from coded_jax.types import PyTree, Split


class Evaluation(NamedTuple):
    """Accuracy under every erasure pattern; printed, it is a table.

    Attributes:
      images: how many were classified.
      base_accuracy: of the uncoded base model.
      patterns: a record for each pattern, fewest lost results first.
    """

    images: int
    base_accuracy: float
    patterns: tuple[PatternAccuracy, ...]

    @property
    def mean(self) -> dict[int, float]:
        """Mean accuracy over the patterns of each number of lost results."""
        return self._by_lost("mean")

    @property
    def worst(self) -> dict[int, float]:
        """Accuracy under the worst pattern of each number of lost results."""
        return self._by_lost("worst")

    def _by_lost(self, name: str) -> dict[int, float]:
        summary = pattern_accuracy.summarise([self.patterns])
        return {int(l): numbers[name] for l, numbers in summary.items()}

    def __str__(self) -> str:
        first = self.patterns[0]
        # Of answers that are images, mean and worst.
        iou, psnr = not np.isnan(first.mean_iou), not np.isnan(first.psnr)
        columns = "  mean IoU   worst" * iou + "  PSNR, dB   worst" * psnr
        measure = "R^2 of the base model" if psnr else "base model"
        lines = [
            f"{self.images} images, {measure} {self.base_accuracy:.2%}",
            f"lost    mean   worst{columns}  worst pattern",
        ]
        for l, row in pattern_accuracy.summarise([self.patterns]).items():
            of_count = [p for p in self.patterns if len(p.lost) == int(l)]
            worst = min(of_count, key=lambda p: p.accuracy)
            lost = ", ".join(map(str, worst.lost)) or "-"
            cells = f"{row['mean']:7.2%} {worst.accuracy:7.2%}"
            if iou:
                cells += f"  {row['mean_iou']:8.2%} {row['worst_iou']:7.2%}"
            if psnr:
                cells += f"  {row['mean_psnr']:8.2f} {row['worst_psnr']:7.2f}"
            lines.append(f"{l:>4} {cells}  {lost}")
        return "\n".join(lines)


def evaluate(
    model: CodedModel,
    data: Split | tuple[Any, Any] | Iterable[tuple[Any, Any]],
    *,
    most_lost: int | None = None,
    stage_losses: str = "held",
) -> Evaluation:
    """Tries every erasure pattern on every image.

    Args:
      model: from `load`, `protect`, `train` or `CodedModel.with_code`.
      data: a part of a data set; or images `[N, H, W, C]` and labels, see
        `types.Dataset`; or an iterator of such pairs, which is read once and not kept.
        Images are those that the model takes, see `CodedModel.logits`.
      most_lost: results lost, at most; the code's `r` if None.
      stage_losses: with several coded stages, a pattern is `"held"` in all of them;
        every later stage loses as many results (`"per_stage"`); or it holds from a
        stage on (`"later"`), drawn for each image.

    Returns:
      The same numbers for arrays and for an iterator of their parts.

    Raises:
      ValueError: there are no images, or images or labels have another form.
    """
    pipeline, (*positions, classes) = model.pipeline, model.answer_shape
    if pipeline.examples.grouped:
        positions = []  # of the images of a group
    n, count = pipeline.n, pipeline.r if most_lost is None else most_lost
    require("most_lost", count, count in range(n + 1), f"0..{n}")
    known = stage_losses in STAGE_LOSSES
    require("stage_losses", stage_losses, known, f"one of {list(STAGE_LOSSES)}")
    patterns = erasures.patterns_up_to(n, count)
    # Running means, which are exactly those of the first part where it is the only one.
    images, rows, labels, means, spread = 0, 0, 0, np.zeros(()), Spread()
    for split in cut(data, predictions.CHUNK * pipeline.images_per_input):
        require_split(split, classes, "data", tuple(positions), model.values)
        model.check_images(split.images)
        images += len(split.labels)
        inputs = groups.inputs_of_split(pipeline, split)
        arrays = {"images": inputs.images, "labels": inputs.labels}
        of_part = predictions.measure(
            model.trained,
            placement.put_replicated(pipeline.mesh, arrays),
            patterns,
            _statistics,
            stage_losses=stage_losses,
            first_row=rows,
        )
        counted = int(predictions.counted(np.asarray(inputs.labels)).sum())
        rows, labels = rows + len(inputs.labels), labels + counted
        means = means + (of_part - means) * (counted / max(1, labels))
        spread = spread.plus(inputs.labels)
    accepted = "one image or more, with labels that count,"
    require("data", f"{images} images", labels > 0, accepted)
    records = pattern_accuracy.from_means(patterns, means[:, :-1], spread)
    base = spread.explained(float(means[0, -1]))
    return Evaluation(images, base, tuple(records))


def _statistics(prediction: Prediction, parameter: jax.Array) -> jax.Array:
    """Returns `pattern_statistics`, and whether the base model is right, last; of
    values its squared error."""
    of_base = pattern_accuracy.correctness(prediction.expected, prediction.labels)
    columns = pattern_accuracy.pattern_statistics(prediction, parameter)
    return jnp.concatenate([columns, of_base[..., None]], axis=-1)


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

    What a former process has measured is taken from the workdir, unless the code has
    uncommitted changes. The confidence of classes is studied under the run's own losses
    alone.

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
    circumstances = describe_circumstances()
    folder = experiment.folder
    # Either all processes look for what is kept, or none.
    if processes.any_process(circumstances is None) or circumstances is None:
        folder, circumstances = None, []
    if folder:
        arrays = [array for split in splits for array in (split.images, split.labels)]
        arrays += jax.tree.leaves(frozen)
        circumstances = [provenance.digest(circumstances, arrays), str(patterns)]
    kinds = (config.stage_losses, *config.other_stage_losses)
    every = [
        (losses, name, seed, fitted.params)
        for name, seeds in codes.items()
        for seed, fitted in enumerate(seeds)
        for losses in kinds
    ]
    row = watch.table.begin("evaluation", len(every))
    measured = {losses: {name: [] for name in codes} for losses in kinds}
    for ready, (losses, name, seed, params) in enumerate(every, 1):
        code = TrainedPipeline(experiment.pipelines[name], frozen, params)
        file, digest, kept = None, "", None
        if folder:
            phase = workdir.phase_of(name, seed)
            file = folder / workdir.MEASURED / f"{phase}_{losses}.json"
            function = experiment.fingerprints.get(f"baseline_{name}", "")
            texts = [*circumstances, losses, name, function]
            digest = provenance.digest(texts, jax.tree.leaves(params))
            kept = read_measured(file, digest)
        if processes.any_process(kept is None) or kept is None:
            begun, study = time.perf_counter(), {}
            if losses == config.stage_losses and not experiment.dataset.values:
                accuracies, study = confidence.study(
                    code, validation, scored, patterns, losses
                )
            else:
                accuracies = pattern_accuracy.measure_patterns(
                    code, scored, patterns, losses
                )
            kept = Measured(accuracies, study, time.perf_counter() - begun)
            if file is not None:
                write_measured(file, digest, kept)
        measured[losses][name].append(kept)
        watch.table.update(row.id, completed=ready)
        if processes.any_process(watch.stop()):
            raise Interrupted("stopped in the evaluation, saved up to there")
    accuracy = pattern_accuracy.base_accuracy(experiment.pipeline, frozen, scored)
    return accuracy, measured


def describe_circumstances() -> list[str] | None:
    """Returns texts of all that measurements depend on, beside images, variables and
    what a workdir fixes: versions, precision, device and kernels; None where the code
    has changes that no commit has, so that nothing is kept."""
    version, backend = provenance.code_version(), jax.default_backend()
    if version is None:
        return None
    jax_settings = jax.config.jax_default_matmul_precision, jax.config.jax_enable_x64
    kernels = lowering.convolutions() if backend == "cpu" else ""
    device = jax.devices()[0].device_kind
    return [version, f"{workdir.versions()} {jax_settings}", device, kernels]


def read_measured(path: Path, digest: str) -> Measured | None:
    """Reads what `write_measured` has kept under this digest; None if it has not, or
    the file is damaged."""
    try:
        kept = json.loads(path.read_text())
        if kept.pop("digest") != digest:
            return None
        measured = Measured(**kept)
        patterns = [PatternAccuracy(tuple(p[0]), *p[1:]) for p in measured.patterns]
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return measured._replace(patterns=patterns)


def write_measured(path: Path, digest: str, measured: Measured) -> None:
    """Keeps measurements, whole or not at all; of several processes, the lead does.

    Raises:
      OSError: in every process, if it cannot be written.
    """
    text = json.dumps({"digest": digest, **measured._asdict()}) + "\n"

    def write_file() -> None:
        path.parent.mkdir(exist_ok=True)
        workdir.write_atomically(path, text)

    processes.by_lead(write_file)
