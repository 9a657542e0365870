"""Effects of losses on a model, in figures; they need the `plot` extra."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np

from coded_jax.codes import erasures
from coded_jax.data.groups import inputs_of_split
from coded_jax.evaluation import inspection
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
    stages = inspection.feature_maps(
        model.pipeline, model.frozen, model.params, jnp.asarray(images), lost
    )
    wide = 4 + max(len(maps.parity) for maps in stages)
    figure = new_figure(1.6 * (wide + 1), (1.7 * len(images) + 0.8) * len(stages))
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.06)  # type: ignore
    parts = figure.subfigures(len(stages), 1, squeeze=False)[:, 0]
    for part, maps in zip(parts, stages, strict=True):
        shown, columns = inspection.side_by_side(maps, channels)
        part.suptitle(
            f"{pattern_text(lost, model.pipeline.k)} lost; blocks "
            f"{blocks_text(maps.blocks)}, channels {', '.join(map(str, shown))}"
        )
        rows = part.subplots(len(images), len(columns) + 1, squeeze=False)
        for i, row in enumerate(rows):
            image = images[i] if images.shape[-1] == 3 else images[i, ..., 0]
            limits = (0, 255) if image.dtype == np.uint8 else (image.min(), image.max())
            row[0].imshow(image, cmap="gray", vmin=limits[0], vmax=limits[1])
            for axes, values in zip(row[1:], columns.values(), strict=True):
                axes.imshow(_tiles(values[i]), interpolation="nearest")
            for axes in row:
                axes.set(anchor="N")
                axes.set_axis_off()
        for axes, name in zip(rows[0], ("image", *columns), strict=True):
            axes.set_title(name, fontsize=10)
    return figure


def _tiles(values: np.ndarray) -> np.ndarray:
    """Returns channels `[M, M', channels]` of `[0, 1]` in two columns, as RGB; NaN is
    red."""
    from matplotlib import colormaps

    scale = max(1, 24 // len(values))  # so that a gap may be narrower than a value
    pixels = values.repeat(scale, axis=0).repeat(scale, axis=1)
    height, width, count = pixels.shape
    gap = 2
    rows = -(-count // 2)
    size = (rows * (height + gap) - gap, min(count, 2) * (width + gap) - gap, 3)
    picture = np.ones(size)
    for i in range(count):
        colours = colormaps["viridis"](np.clip(pixels[..., i], 0, 1))[..., :3]
        colours[np.isnan(pixels[..., i])] = LOST
        top, left = i // 2 * (height + gap), i % 2 * (width + gap)
        picture[top : top + height, left : left + width] = colours
    return picture


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
    values = are_values(split.labels)
    answer = model.logits if values else model.classify
    whole, coded = (np.asarray(answer(split.images, some)) for some in ((), lost))
    limits = split.labels.min(), split.labels.max()
    changed = whole != coded
    if values:
        answered = (np.where(np.isfinite(x), x, 0) for x in (whole, coded))
        changed = np.abs(np.subtract(*answered)).max(-1) / _range(*limits)
    columns = {
        "image": split.images,
        "labels": split.labels,
        "nothing lost": whole,
        f"{pattern_text(lost, model.pipeline.k)} lost": coded,
        "changed": changed,
    }
    options = {
        name: _colours(values, *limits, "white" if name == "labels" else LOST)
        for name in columns
    }
    options |= {
        "image": {"cmap": "gray"},
        "changed": {"cmap": "Reds", "vmin": 0, "vmax": 1},
    }
    figure = new_figure(1.7 * len(columns), 1.7 * len(split.images) + 0.4)
    rows = figure.subplots(len(split.images), len(columns), squeeze=False)
    for i, row in enumerate(rows):
        for axes, (name, pictures) in zip(row, columns.items(), strict=True):
            own = pictures[i]
            ends = (own.min(), own.max()) if name == "image" else limits
            shown = _pixels(own, *ends)
            axes.imshow(shown, interpolation="nearest", **options[name])
            axes.set_axis_off()
    for axes, name in zip(rows[0], columns, strict=True):
        axes.set_title(name, fontsize=10)
    return figure


def _range(low: float, high: float) -> float:
    return max(high - low, 1e-9)


def _colours(values: bool, low: float, high: float, none: Any) -> dict[str, Any]:
    """Returns options of `imshow` for answers, with the colour of a missing one."""
    from matplotlib import colormaps

    colours = colormaps["gray" if values else "tab20"].with_extremes(bad=none)
    limits = (low, high) if values else (0, 19)
    return {"cmap": colours, "vmin": limits[0], "vmax": limits[1]}


def _pixels(picture: np.ndarray, low: float, high: float) -> np.ndarray:
    """Returns `[H, W]`, or `[H, W, 3]`, real ones of the range given in 0 to 1, or the
    first channel of another number of them; classes as one of twenty, -1 as NaN."""
    if picture.dtype == bool:
        return picture
    if picture.ndim == 2 and np.issubdtype(picture.dtype, np.signedinteger):
        return np.where(picture < 0, np.nan, picture % 20)
    if picture.ndim == 2:
        return picture
    if picture.shape[-1] != 3:
        return picture[..., 0]
    if picture.dtype == np.uint8:
        return picture
    pixels = np.clip((picture - low) / _range(low, high), 0, 1)
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
    errors = inspection.confusion(
        model.pipeline,
        model.frozen,
        model.params,
        inputs_of_split(model.pipeline, split),
        lost,
        classes=model.classes,
        stage_losses=(
            model.results["config"]["stage_losses"] if model.results else "held"
        ),
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
