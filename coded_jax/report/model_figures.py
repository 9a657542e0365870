"""Effects of losses on a model, in figures; they need the `plot` extra."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np

from coded_jax.codes import erasures
from coded_jax.data.groups import inputs_of_split
from coded_jax.evaluation import inspection
from coded_jax.evaluation.predictions import TrainedPipeline
from coded_jax.report.canvas import new_figure
from coded_jax.report.formatting import blocks_text, pattern_text
from coded_jax.runs.coded_model import CodedModel
from coded_jax.types import Split, are_values

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_NUMBERS = 20
"""Classes whose confusions are written into the picture."""
LOST = (0.89, 0.45, 0.42)
"""The colour of what did not arrive, as RGB."""


def features(
    model: CodedModel, images: np.ndarray, lost: Iterable[int], channels: int = 4
) -> Figure:
    """Draws the feature maps of every coded stage side by side, a row for each image.

    A picture has the channels that differ most between pixels and images. A channel has
    one scale in all pictures, and one of its own in those of parity pieces; what is
    lost is red.

    Args:
      model: one that codes pieces of an image.
      images: uint8 `[B, H, W, C]`.
      lost: the lost results, ascending.
      channels: how many are shown.

    Raises:
      ImportError: matplotlib is missing.
      ValueError: the images have another shape; or see `inspection.feature_maps`.
    """
    lost = erasures.pattern_of(lost, model.pipeline.n)
    model.check_images(images)
    trained = TrainedPipeline(model.pipeline, model.frozen, model.params)
    of_stages = inspection.feature_maps(trained, jnp.asarray(images), lost)
    wide = 4 + max(len(maps.parity) for maps in of_stages)
    figure = new_figure(1.6 * (wide + 1), (1.7 * len(images) + 0.8) * len(of_stages))
    figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.06)
    parts = figure.subfigures(len(of_stages), 1, squeeze=False)[:, 0]
    stages = model.pipeline.stages
    for part, stage, maps in zip(parts, stages, of_stages, strict=True):
        shown, columns = inspection.side_by_side(maps, channels)
        part.suptitle(
            f"{pattern_text(lost, model.pipeline.k)} lost; blocks "
            f"{blocks_text(stage.blocks)}, channels {', '.join(map(str, shown))}"
        )
        rows = part.subplots(len(images), len(columns) + 1, squeeze=False)
        for axes, name in zip(rows[0], ("image", *columns), strict=True):
            axes.set_title(name, fontsize=10)
        for i, (first, *others) in enumerate(rows):
            image = images[i] if images.shape[-1] == 3 else images[i, ..., 0]
            low, high = (0, 255) if image.dtype == "u1" else (image.min(), image.max())
            first.imshow(image, cmap="gray", vmin=low, vmax=high)
            for axes, values in zip(others, columns.values(), strict=True):
                axes.imshow(_tiles(values[i]), interpolation="nearest")
        for axes in rows.flat:
            axes.set(anchor="N")
            axes.set_axis_off()
    return figure


def _tiles(values: np.ndarray) -> np.ndarray:
    """Returns channels `[M, M', channels]` of `[0, 1]` in two columns, as RGB; NaN is
    red."""
    from matplotlib import colormaps

    colours = colormaps["viridis"].with_extremes(bad=LOST)(values)[..., :3]
    scale = max(1, 24 // len(values))  # so that a gap may be narrower than a value
    tiles = np.moveaxis(colours, 2, 0).repeat(scale, axis=1).repeat(scale, axis=2)
    gap, columns = 2, min(len(tiles), 2)
    widths = [(0, len(tiles) % columns), (0, gap), (0, gap), (0, 0)]
    tiles = np.pad(tiles, widths, constant_values=1)
    _, height, width, _ = tiles.shape
    rows = tiles.reshape(-1, columns, height, width, 3).swapaxes(1, 2)
    return rows.reshape(-1, columns * width, 3)[:-gap, :-gap]


def answers(model: CodedModel, split: Split, lost: Iterable[int]) -> Figure:
    """Draws answers that are images, with and without losses, a row for each image.

    Classes have a colour each, twenty of them; labels that do not count are white, and
    what has no answer is red. Values have grey levels or, of three channels, colours;
    of another number the first channel is drawn. The last column has in red what
    losses change: of values the largest difference of a channel, over the labels'
    range, with 0 for what has no answer.

    Args:
      model: one that gives an answer at each position.
      split: images `[B, H, W, C]` and their labels, `[B, H', W']` or values
        `[B, H', W', C']`; all are drawn.
      lost: the lost results.

    Raises:
      ImportError: matplotlib is missing.
      ValueError: the images have another shape, or there are no such results.
    """
    lost = erasures.pattern_of(lost, model.pipeline.n)
    figure = new_figure(8.5, 1.7 * len(split.images) + 0.4)
    from matplotlib import colormaps

    values = are_values(split.labels)
    answer = model.logits if values else model.classify
    whole, coded = (np.asarray(answer(split.images, some)) for some in ((), lost))
    if values:
        low, high = split.labels.min(), split.labels.max()
        colours, ends = colormaps["gray"], {"vmin": low, "vmax": high}
        shown = lambda answers: _pixels(answers, low, high)
        answered = (np.where(np.isfinite(x), x, 0) for x in (whole, coded))
        changed = np.abs(np.subtract(*answered)).max(-1) / max(high - low, 1e-9)
    else:
        colours, ends = colormaps["tab20"], {"vmin": 0, "vmax": 19}
        shown = lambda answers: np.where(answers < 0, np.nan, answers % 20)
        changed = whole != coded
    of_labels = {"cmap": colours.with_extremes(bad="white"), **ends}
    of_answers = {"cmap": colours.with_extremes(bad=LOST), **ends}
    images = [_pixels(image, image.min(), image.max()) for image in split.images]
    missed = f"{pattern_text(lost, model.pipeline.k)} lost"
    columns = {
        "image": (images, {"cmap": "gray"}),
        "labels": (shown(split.labels), of_labels),
        "nothing lost": (shown(whole), of_answers),
        missed: (shown(coded), of_answers),
        "changed": (changed, {"cmap": "Reds", "vmin": 0, "vmax": 1}),
    }
    rows = figure.subplots(len(split.images), len(columns), squeeze=False)
    for column, (name, (pictures, options)) in enumerate(columns.items()):
        rows[0, column].set_title(name, fontsize=10)
        for axes, picture in zip(rows[:, column], pictures, strict=True):
            axes.imshow(picture, interpolation="nearest", **options)
            axes.set_axis_off()
    return figure


def _pixels(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Returns RGB of three channels `[..., C]`, real ones as parts of a range, and red
    where they are not finite; of another number the first channel."""
    if values.shape[-1] != 3:
        return values[..., 0]
    if values.dtype == np.uint8:
        return values
    pixels = np.clip((values - low) / max(high - low, 1e-9), 0, 1)
    return np.where(np.isfinite(pixels).all(-1, keepdims=True), pixels, LOST)


def confusion(model: CodedModel, split: Split, lost: Iterable[int]) -> Figure:
    """Draws which answers an erasure pattern spoils, by true class and new answer.

    Counted are images, or positions, that the base model classifies correctly.

    Args:
      model, split, lost: see `inspection.confusion`.

    Raises:
      ImportError: matplotlib is missing.
      ValueError: see `inspection.confusion`.
    """
    lost = erasures.pattern_of(lost, model.pipeline.n)
    config = model.results.get("config", {})
    errors = inspection.confusion(
        TrainedPipeline(model.pipeline, model.frozen, model.params),
        inputs_of_split(model.pipeline, split),
        lost,
        classes=model.classes,
        stage_losses=config.get("stage_losses", "held"),
    )
    classes = len(errors.spoiled)
    unanswered = errors.spoiled[:, -1].any()
    counts = errors.spoiled if unanswered else errors.spoiled[:, :-1]
    size = 2 + min(8.0, 0.45 * classes)
    figure = new_figure(size + 1, size)
    axes = figure.add_subplot()
    picture = axes.imshow(counts, cmap="Reds", vmin=0, vmax=max(1, counts.max()))
    if classes <= MOST_NUMBERS:
        for (i, j), count in np.ndenumerate(counts):
            if count:
                colour = "white" if 2 * count > counts.max() else "black"
                axes.text(j, i, str(count), ha="center", va="center", color=colour)
        names = [*range(classes), *(["none"] if unanswered else [])]
        axes.set_xticks(range(len(names)), names)
        axes.set_yticks(range(classes))
    counted = "images" if split.labels.ndim == 1 else "answers"
    figure.colorbar(picture, label=counted, shrink=0.8)
    axes.set(xlabel="answer with what arrived", ylabel="true class")
    axes.set_title(
        f"{pattern_text(lost, model.pipeline.k)} lost: of {errors.images} answers "
        f"{errors.spoiled.sum()} (below)\nare no longer right, {errors.mended} no "
        "longer wrong",
        fontsize=10,
    )
    return figure
