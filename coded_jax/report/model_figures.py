"""Effects of losses on a model: feature maps of the stages, and answers that change;
their figures need the `plot` extra."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from coded_jax import splitting
from coded_jax.checks import require
from coded_jax.codes import erasures
from coded_jax.codes.quorum import sent
from coded_jax.data.groups import inputs_of_split
from coded_jax.devices import placement
from coded_jax.evaluation import predictions
from coded_jax.evaluation.predictions import Prediction
from coded_jax.inference import pipeline as inference
from coded_jax.inference import stages
from coded_jax.inference.pipeline import Pipeline
from coded_jax.report.canvas import new_figure
from coded_jax.report.formatting import blocks_text, pattern_text
from coded_jax.runs.coded_model import CodedModel
from coded_jax.types import PyTree, Split, apart, are_values

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_NUMBERS = 20
"""Classes whose confusions are written into the picture."""
LOST = (0.89, 0.45, 0.42)
"""The colour of what did not arrive, as RGB."""


class StageMaps(NamedTuple):
    """Feature maps of one coded stage.

    Attributes:
      original: float32 `[B, M*, M'*, D]`, of the uncoded base model.
      arrived: float32 `[B, M*, M'*, D]`, the data pieces' results, NaN where lost.
      parity: float32 `[r, B, M, M', D]`, the parity pieces' results, NaN where lost;
        `[0, ...]` of a code that makes none.
      reconstructed: float32 `[B, M*, M'*, D]`, the stage's decoded output.
    """

    original: np.ndarray
    arrived: np.ndarray
    parity: np.ndarray
    reconstructed: np.ndarray


def feature_maps(
    model: CodedModel, images: np.ndarray, lost: Iterable[int]
) -> list[StageMaps]:
    """Computes the feature maps of every coded stage, each with the same losses.

    Args:
      model, images, lost: as of `features`.

    Raises:
      ValueError: the images have another shape, there are no such results, or groups of
        images are coded, whose shares are logits.
    """
    model.check_images(images)
    accepted = "'image': what devices return of groups is logits, not feature maps,"
    require("split", "group", not model.pipeline.examples.grouped, accepted)
    require(
        "split",
        "views",
        model.pipeline.exact,
        "'image': views are no parts of the features,",
    )
    available = jnp.asarray(erasures.available(lost, model.pipeline.n))
    return jax.device_get(_maps(*model.trained, images, available))


@functools.partial(jax.jit, static_argnums=0)
def _maps(
    pipeline: Pipeline,
    frozen: PyTree,
    params: PyTree,
    images: jax.Array,
    available: jax.Array,
) -> list[StageMaps]:
    k, maps, state = pipeline.k, [], inference.inputs_of(pipeline, images)
    exact = inference.exact_outputs(pipeline, frozen, images)
    arrived = inference.per_stage(pipeline, available)
    arrived = inference.of_pieces(pipeline, arrived)
    for i, stage in enumerate(pipeline.stages):
        sent_to = stages.begin_stage(stage, frozen, params[i], state)
        results = stages.stage_results(stage, frozen, params[i], sent_to.queries)
        state = stages.end_stage(stage, params[i], results, arrived[i], sent_to.kept)
        seen = jnp.where(arrived[i][..., None, None, None], results, jnp.nan)
        seen = stages.shares_of(stage, seen)
        parity = seen[k : sent(stage.code.quorum, k, pipeline.n).stop]
        merged = splitting.merge(stage.plan, seen[:k])
        of_stage = StageMaps(exact[i], merged, parity, apart(state)[0])
        maps.append(jax.tree.map(lambda x: x.astype(jnp.float32), of_stage))
    return maps


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
      ValueError: see `feature_maps`.
    """
    lost = erasures.pattern_of(lost, model.pipeline.n)
    of_stages = feature_maps(model, images, lost)
    wide = 4 + max(len(maps.parity) for maps in of_stages)
    figure = new_figure(1.6 * (wide + 1), (1.7 * len(images) + 0.8) * len(of_stages))
    figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.06)
    parts = figure.subfigures(len(of_stages), 1, squeeze=False)[:, 0]
    coded = model.pipeline.stages
    for part, stage, maps in zip(parts, coded, of_stages, strict=True):
        shown, columns = side_by_side(maps, channels)
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


def side_by_side(
    maps: StageMaps, channels: int
) -> tuple[list[int], dict[str, np.ndarray]]:
    """Selects channels of all maps and scales them to be looked at together.

    A channel has one scale in all maps, its range in the original, and in those of each
    parity piece a scale of its own, since mixtures have values of another size.

    Args:
      maps: of one stage.
      channels: how many, of those that differ most between positions and images.

    Returns:
      Their numbers, and float32 `[B, ..., channels]` by name, in `[0, 1]` where they do
      not exceed the original, NaN where lost.
    """
    shown = np.argsort(-maps.original.var(axis=(0, 1, 2)), kind="stable")[:channels]
    picked = StageMaps(*(values[..., shown] for values in maps))
    low, size = _range(picked.original)
    columns = {
        "original": (picked.original - low) / size,
        "arrived": (picked.arrived - low) / size,
    }
    for i, parity in enumerate(picked.parity):
        least, most = _range(np.nan_to_num(parity))
        columns[f"parity {i}"] = (parity - least) / most
    columns["reconstructed"] = (picked.reconstructed - low) / size
    columns["difference"] = np.abs(picked.reconstructed - picked.original) / size
    return shown.tolist(), columns


def _range(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns each channel's least value and its range, or 1 for a range of 0."""
    flat = values.reshape(-1, values.shape[-1])
    size = np.ptp(flat, axis=0)
    return flat.min(axis=0), np.where(size > 0, size, 1)


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


class Confusion(NamedTuple):
    """Answers that losses change, counted over a split.

    Attributes:
      spoiled: int `[classes, classes + 1]`, of images, or positions, that the base
        model classifies correctly: how many of each class are given each other one; the
        last column counts those without an answer.
      mended: how many the base model alone classifies wrongly.
      images: how many images, or positions that count, there are.
    """

    spoiled: np.ndarray
    mended: int
    images: int


def count_changes(model: CodedModel, split: Split, lost: Iterable[int]) -> Confusion:
    """Compares the answers from what arrived with those of the base model.

    Args:
      model: one that gives classes. In several stages results are lost as in its run.
      split: images and labels, all of which are tried.
      lost: the lost results.

    Raises:
      ValueError: there are no such results, or labels are values.
    """
    pattern = erasures.pattern_of(lost, model.pipeline.n)
    accepted = "classes, which can be confused"
    require("split.labels", "values", not are_values(split.labels), accepted)
    split = inputs_of_split(model.pipeline, split)
    config = (model.results or {}).get("config", {})
    arrays = {"images": split.images, "labels": split.labels}
    (rows,) = predictions.measure(
        model.trained,
        placement.put_replicated(model.pipeline.mesh, arrays),
        [pattern],
        _classes,
        per_image=True,
        stage_losses=config.get("stage_losses", "held"),
    )
    answer, expected, label = rows.astype(int).T
    spoiled = np.zeros((model.classes, model.classes + 1), int)
    wrong = (expected == label) & (answer != label)
    np.add.at(spoiled, (label[wrong], answer[wrong]), 1)  # -1 is the last column
    mended = int(((expected != label) & (answer == label)).sum())
    return Confusion(spoiled, mended, len(label))


def _classes(prediction: Prediction, _: jax.Array) -> jax.Array:
    """Returns `[..., 3]`: the class answered, the base model's, and the true one."""
    classes = (prediction.classes, prediction.expected, prediction.labels)
    return jnp.stack(classes, axis=-1)


def confusion(model: CodedModel, split: Split, lost: Iterable[int]) -> Figure:
    """Draws which answers an erasure pattern spoils, by true class and new answer.

    Counted are images, or positions, that the base model classifies correctly.

    Args:
      model, split, lost: see `count_changes`.

    Raises:
      ImportError: matplotlib is missing.
      ValueError: see `count_changes`.
    """
    lost = erasures.pattern_of(lost, model.pipeline.n)
    errors = count_changes(model, split, lost)
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
