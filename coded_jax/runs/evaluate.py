"""Accuracy of a coded model under every erasure pattern, over arrays or a stream."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from coded_jax.checks import is_integer, require, require_type
from coded_jax.codes import erasures
from coded_jax.codes.erasures import Pattern
from coded_jax.data import groups
from coded_jax.data.user_data import cut, require_split
from coded_jax.devices import placement
from coded_jax.evaluation import pattern_accuracy, predictions
from coded_jax.evaluation.pattern_accuracy import PatternAccuracy, Spread
from coded_jax.evaluation.predictions import STAGE_LOSSES, Prediction, TrainedPipeline
from coded_jax.runs.coded_model import CodedModel
from coded_jax.types import Split


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
        summary = pattern_accuracy.summarise([self.patterns])
        return {int(l): numbers["mean"] for l, numbers in summary.items()}

    @property
    def worst(self) -> dict[int, float]:
        """Accuracy under the worst pattern of each number of lost results."""
        summary = pattern_accuracy.summarise([self.patterns])
        return {int(l): numbers["worst"] for l, numbers in summary.items()}

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
    accepted = "a CodedModel, as of load, protect or train,"
    require_type("model", model, CodedModel, accepted)
    n, (*positions, classes) = model.pipeline.n, model.answer_shape
    if model.pipeline.examples.grouped:
        positions = []  # of the images of a group
    count = model.pipeline.r if most_lost is None else most_lost
    fits = is_integer(count) and 0 <= count <= n
    require("most_lost", count, fits, f"0..{n}")
    fits = stage_losses in STAGE_LOSSES
    require("stage_losses", stage_losses, fits, f"one of {list(STAGE_LOSSES)}")
    images = 0

    def inputs() -> Iterator[Split]:
        nonlocal images
        for split in cut(data, predictions.CHUNK * model.pipeline.images_per_input):
            require_split(split, classes, "data", tuple(positions), model.values)
            model.check_images(split.images)
            images += len(split.labels)
            yield groups.inputs_of_split(model.pipeline, split)

    patterns = erasures.patterns_up_to(n, int(count))
    base, records = measure_parts(model, inputs(), patterns, stage_losses)
    return Evaluation(images, base, tuple(records))


def measure_parts(
    model: CodedModel,
    inputs: Iterable[Split],
    patterns: Sequence[Pattern],
    stage_losses: str,
) -> tuple[float, list[PatternAccuracy]]:
    """Tries patterns on the inputs of a pipeline, images or groups of them.

    Args:
      model: the code with its parameters.
      inputs: some at a time.
      patterns: erasure patterns.
      stage_losses: one of `predictions.STAGE_LOSSES`.

    Returns:
      The accuracy of the base model, and the record of each pattern.

    Raises:
      ValueError: there are no inputs, or no label counts.
    """
    # Running means, which are exactly those of the first part where it is the only one.
    means, labels, rows, spread = np.zeros(()), 0, 0, Spread()
    for split in inputs:
        arrays = {"images": split.images, "labels": split.labels}
        of_part = predictions.measure(
            TrainedPipeline(model.pipeline, model.frozen, model.params),
            placement.put_replicated(model.pipeline.mesh, arrays),
            patterns=patterns,
            statistic=_statistics,
            stage_losses=stage_losses,
            first_row=rows,
        )
        counted = int(predictions.counted(np.asarray(split.labels)).sum())
        rows, labels = rows + len(split.labels), labels + counted
        means = means + (of_part - means) * (counted / max(1, labels))
        spread = spread.plus(split.labels)
    require("data", rows, rows > 0, "one image or more")
    require("data", "labels of -1", labels > 0, "one label or more that counts")
    records = pattern_accuracy.from_means(patterns, means[:, :-1], spread)
    return spread.explained(float(means[0, -1])), records


def _statistics(prediction: Prediction, parameter: jax.Array) -> jax.Array:
    """Returns `pattern_statistics`, and whether the base model is right, last; of
    values its squared error."""
    of_base = pattern_accuracy.correctness(prediction.expected, prediction.labels)
    columns = pattern_accuracy.pattern_statistics(prediction, parameter)
    return jnp.concatenate([columns, of_base[..., None]], axis=-1)
