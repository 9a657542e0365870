"""Fitting decoders of views: a pass over images, a penalty by validation, a network.

The base model computes each image and its n views once in each pass. For decoders of
least squares what is kept of them are sums: no step of training, no labels. A network
beside these is trained on the results and features themselves, which no code changes.
"""

from __future__ import annotations

import contextlib
import functools
import io
import math
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from coded_jax.checks import require
from coded_jax.codes import erasures
from coded_jax.codes.erasures import Pattern
from coded_jax.codes.least_squares import Moments
from coded_jax.codes.views import NETWORK
from coded_jax.data.augmentation import AUGMENTATIONS
from coded_jax.devices import placement
from coded_jax.devices.meshes import padded_size
from coded_jax.evaluation import pattern_accuracy, predictions
from coded_jax.evaluation.predictions import Prediction, TrainedPipeline, Uncoded
from coded_jax.inference.pipeline import Pipeline, Results
from coded_jax.training.config import TrainConfig
from coded_jax.training.loop import SCORE, Task
from coded_jax.training.losses import answer_losses
from coded_jax.types import PyTree, are_values

CHUNK = 250
GROUPS = 8
"""Sets of results that arrive in a step of training, each for a part of the batch."""
MOST_BYTES = 4 << 30
"""Of results that are kept for a training by steps."""
MOST_SETS = 255
"""Sets of results that may arrive, whose accuracy is measured: all of 8 views."""
RIDGES = (1e-3, 1e-2, 1e-1, 1.0)
"""Penalties that are tried, see `least_squares.solve`."""


class Sums(NamedTuple):
    """Moments of the images that have been seen so far.

    Attributes:
      seen: images, those of later passes included.
      moments: of them.
      last: what the last chunk of them has added to `Features`, by name, `[rows, ...]`;
        empty where nobody keeps it.
    """

    seen: int
    moments: Moments
    last: dict[str, np.ndarray] = {}


class Passes(NamedTuple):
    """Passes over the images of a training part.

    Attributes:
      number: how often each image is seen; a part of them for a fraction.
      augmentation: of `AUGMENTATIONS`, drawn anew for each image in every pass.
      key: of the draws.
    """

    number: float
    augmentation: str
    key: jax.Array

    def images(self, total: int) -> int:
        """Returns the number of images that are seen, of so many in all; those that
        stay as they are once at most."""
        number = min(1, self.number) if self.augmentation == "none" else self.number
        return max(1, round(number * total))


def moments_of(
    pipeline: Pipeline,
    frozen: PyTree,
    images: jax.Array,
    passes: Passes,
    begun: Sums | None = None,
    keeps: bool = False,
) -> Iterator[Sums]:
    """Sums the moments of all views' results and of the features of the whole image,
    chunk by chunk.

    Args:
      pipeline: of views.
      frozen: variables of the base model.
      images: `[N, H, W, C]`, on the devices.
      passes: over them.
      begun: sums that it goes on from; those of no image if None.
      keeps: whether results and targets are needed beside their sums.

    Yields:
      The sums up to each chunk's end; the last ones are those of all passes.
    """
    (stage,) = pipeline.stages
    outputs = [math.prod(x) for x in (stage.result_shape, stage.plan.features_shape)]
    total, goal = len(images), passes.images(len(images))
    size = padded_size(pipeline.mesh, min(CHUNK, total))
    seen, moments = (0, Moments.zero(pipeline.n, *outputs))
    if begun is not None:
        seen, moments = begun.seen, begun.moments
    uncoded = predictions.without_code(pipeline)
    arrays = {"images": images, "labels": jnp.zeros(total, jnp.int32)}
    while seen < goal:
        number, start = divmod(seen, total)
        rows = min(size, total - start, goal - seen)
        some, _, _ = predictions.take_rows(arrays, np.int32(start), size)
        if passes.augmentation != "none":
            key = jax.random.fold_in(jax.random.fold_in(passes.key, number), start)
            some = _changed(passes.augmentation, key, some)
        target, _ = predictions.run_uncoded(uncoded, frozen, some)
        results = predictions.run_devices(uncoded, frozen, ({},), some).features
        more = _products(results, target, np.int32(rows), pipeline.mesh)
        count, *sums = jax.tree.map(np.float64, more)
        seen, moments = seen + rows, moments.plus(Moments(float(count), *sums))
        own = {}
        if keeps:
            by_image = np.moveaxis(np.asarray(results, np.float32), 0, 1)
            own = {"results": by_image[:rows], "target": np.asarray(target)[:rows]}
        yield Sums(seen, moments, own)


@functools.partial(jax.jit, static_argnums=0)
def _changed(augmentation: str, key: jax.Array, images: jax.Array) -> jax.Array:
    return AUGMENTATIONS[augmentation](key, images)


@functools.partial(jax.jit, static_argnames="mesh")
def _products(
    results: jax.Array, target: jax.Array, rows: jax.Array, mesh: Mesh | None
) -> tuple[jax.Array, ...]:
    """Returns the moments of the first rows of a chunk, float32."""
    n, batch = results.shape[:2]
    counts = (jnp.arange(batch) < rows)[:, None]
    by_image = jnp.moveaxis(results.astype(jnp.float32), 0, 1).reshape(batch, -1)
    x = jnp.where(counts, by_image, 0)
    y = jnp.where(counts, target.reshape(batch, -1), 0)
    product = functools.partial(jnp.matmul, precision="highest")
    sums = (counts.sum(), x.sum(axis=0).reshape(n, -1), y.sum(axis=0))
    return placement.replicated(mesh, (*sums, product(x.T, x), product(x.T, y)))


def write(sums: Sums) -> bytes:
    """Returns sums as the bytes of a file."""
    file = io.BytesIO()
    np.savez(file, seen=sums.seen, **sums.moments._asdict())
    return file.getvalue()


def read(file: Path) -> Sums | None:
    """Reads sums from a file; None if there is none, or it is damaged."""
    try:
        with np.load(file, allow_pickle=False) as stored:
            moments = Moments(**{name: stored[name] for name in Moments._fields})
            return Sums(int(stored["seen"]), moments)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


class Features:
    """The results of all views and the features of the whole image, kept for a training
    by steps: `[N, n, M, M', D]` and `[N, M*, M'*, D]`, float32.

    Args:
      pipeline: of views.
      total: N, the images of all passes.
      folder: where they are kept as files, so that a pass goes on; in memory if None.

    Attributes:
      are_new: whether nothing was kept in the folder.

    Raises:
      ValueError: they have more than `MOST_BYTES`.
    """

    def __init__(self, pipeline: Pipeline, total: int, folder: Path | None) -> None:
        (stage,) = pipeline.stages
        shapes = {
            "results": (total, pipeline.n, *stage.result_shape),
            "target": (total, *stage.plan.features_shape),
        }
        size = 4 * sum(map(math.prod, shapes.values()))
        accepted = f"so many that results take {MOST_BYTES >> 30} GiB at most"
        given = f"{total} images with results of {size / 2**30:.1f} GiB"
        require("passes", given, size <= MOST_BYTES, accepted)
        self._files = {}
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            self._files = {name: folder / f"{name}.npy" for name in shapes}
        self.are_new = not all(file.exists() for file in self._files.values())
        self.arrays: dict[str, np.ndarray] = {
            name: self._open(name, shape) for name, shape in shapes.items()
        }

    def _open(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        if name not in self._files:
            return np.empty(shape, np.float32)
        file = self._files[name]
        if file.exists():
            with contextlib.suppress(ValueError, OSError):
                kept = np.lib.format.open_memmap(file, mode="r+")
                if kept.shape == shape:
                    return kept
        return np.lib.format.open_memmap(file, "w+", np.float32, shape)

    def put(self, sums: Sums) -> None:
        """Keeps those of the last chunk."""
        for name, rows in sums.last.items():
            self.arrays[name][sums.seen - len(rows) : sums.seen] = rows

    def flush(self) -> None:
        """Writes what is kept into the files."""
        for array in self.arrays.values():
            if isinstance(array, np.memmap):
                array.flush()


def network_task(
    pipeline: Pipeline,
    estimates: PyTree,
    frozen: PyTree,
    validation: Validation,
    config: TrainConfig,
    optimizer: optax.GradientTransformation,
) -> Task:
    """Returns the task that trains the network of a decoder beside its estimates.

    The loss is the cross-entropy with the network's own classes, `distillation` times
    the squared error of its logits, and `supervision` times the cross-entropy with the
    labels; of values the squared error. Epochs are compared by agreement.

    Args:
      pipeline: of views.
      estimates: parameters of its code, from `choose`, which stay as they are.
      frozen: variables of the base model; `fit` is given them with the estimates.
      validation: compares the epochs.
      config: weights of the loss's terms.
      optimizer: of the network's parameters.
    """
    (stage,) = pipeline.stages

    def loss(
        network: PyTree, fixed: tuple, batch: dict[str, jax.Array], key: jax.Array
    ) -> tuple[jax.Array, PyTree]:
        frozen, estimates = fixed
        params = {**estimates, NETWORK: network}
        results = jnp.moveaxis(batch["results"], 1, 0)
        masks = erasures.sample(key, pipeline.n, pipeline.r, GROUPS)
        size = results.shape[1] // GROUPS
        decoded = []
        for group in range(GROUPS):  # one mask each, and so one matrix
            end = results.shape[1] if group + 1 == GROUPS else (group + 1) * size
            own = results[:, group * size : end]
            decoded.append(stage.code.decode(params, own, masks[:, group, None])[0])
        _, answers = pipeline.run_tail(frozen, jnp.concatenate(decoded))
        _, expected = pipeline.run_tail(frozen, batch["target"])
        squares = jnp.square(answers - expected).mean()
        if pipeline.examples.values:
            return squares, {}
        own = optax.softmax_cross_entropy(answers, jax.nn.softmax(expected)).mean()
        total = own + config.distillation * squares
        if config.supervision:
            labelled = answer_losses(answers, batch["labels"]).mean()
            total += config.supervision * labelled
        return total, {}

    def score(network: PyTree) -> dict[str, float]:
        params = ({**estimates, NETWORK: network},)
        _, means = validation.means(TrainedPipeline(pipeline, frozen, params))
        return {SCORE: float(means[:, 2].mean())}

    init = lambda key: stage.code.init(key)[NETWORK]
    return Task(init, loss, score, optimizer)


class Validation(NamedTuple):
    """The validation part with what no decoder changes, computed once.

    Attributes:
      arrays: images and labels.
      uncoded, results: of each chunk, see `predictions.measure`.
    """

    arrays: dict[str, Any]
    uncoded: list[Uncoded]
    results: list[Results]

    @classmethod
    def of(
        cls, pipeline: Pipeline, frozen: PyTree, arrays: dict[str, Any]
    ) -> Validation:
        """Computes all views' results of all images of a part."""
        without = predictions.without_code(pipeline)
        chunks = [*predictions.uncoded_chunks(pipeline, frozen, arrays)]
        run = functools.partial(predictions.run_devices, without, frozen, ({},))
        return cls(arrays, chunks, [run(chunk.images) for chunk in chunks])

    def means(
        self, trained: TrainedPipeline, patterns: list[Pattern] | None = None
    ) -> tuple[list[Pattern], np.ndarray]:
        """Returns patterns, by default those of up to r lost results, and means
        `[P, 3]` of doubt, accuracy and agreement, see `choose`."""
        pipeline = trained.pipeline
        if patterns is None:
            patterns = erasures.patterns_up_to(pipeline.n, pipeline.r)
        more = {"uncoded": self.uncoded, "results": self.results}
        means = predictions.measure(trained, self.arrays, patterns, _doubt, **more)
        return patterns, means


def by_set(trained: TrainedPipeline, validation: Validation) -> list[dict[str, Any]]:
    """Returns doubt, accuracy and agreement for each set of results that may arrive, by
    what is lost, as `results.json` has them; at most `MOST_SETS`, fewest losses
    first."""
    n = trained.pipeline.n
    patterns = [p for p in erasures.patterns_up_to(n, n) if len(p) < n][:MOST_SETS]
    _, means = validation.means(trained, patterns)
    names = ("doubt", "accuracy", "agreement")
    return [
        {"lost": list(lost), **dict(zip(names, row, strict=True))}
        for lost, row in zip(patterns, means.tolist(), strict=True)
    ]


class Choice(NamedTuple):
    """A fit with the penalty that was chosen.

    Attributes:
      params: of the code.
      ridge: the penalty.
      doubts: of each penalty that was tried, see `choose`.
      score: accuracy on the validation part, the mean over all erasure patterns.
    """

    params: PyTree
    ridge: float
    doubts: dict[float, float]
    score: float


def choose(
    pipeline: Pipeline,
    frozen: PyTree,
    moments: Moments,
    validation: Validation,
    ridges: Sequence[float] = RIDGES,
) -> Choice:
    """Fits the decoder with each penalty, and chooses the one that doubts least.

    That is, the least mean cross-entropy with the network's own classes, of as many
    lost results as parity views at most, all numbers of them alike; of values the least
    squared difference. No label counts.

    Args:
      pipeline: of views.
      frozen: variables of the base model.
      moments: of the training part.
      validation: chooses.
      ridges: penalties.
    """
    (stage,) = pipeline.stages
    assert stage.code.traits.fit is not None
    drawn = jax.jit(stage.code.init)(jax.random.key(0))  # a network that is 0 yet
    best, doubts = None, {}
    for ridge in ridges:
        params = ({**drawn, **stage.code.traits.fit(moments, ridge)},)
        params = placement.put_replicated(pipeline.mesh, params)
        trained = TrainedPipeline(pipeline, frozen, params)
        patterns, means = validation.means(trained)
        counts = np.array([len(pattern) for pattern in patterns])
        of_counts = [means[counts == l, 0].mean() for l in set(counts.tolist())]
        doubts[ridge] = float(np.mean(of_counts))
        if best is None or doubts[ridge] < doubts[best.ridge]:
            best = Choice(params, ridge, doubts, float(means[:, 1].mean()))
    assert best is not None
    return best


def _doubt(prediction: Prediction, parameter: jax.Array) -> jax.Array:
    """Returns the cross-entropy with the network's own class, or the squared difference
    from its values; `correctness`; and agreement: a `predictions.Statistic`."""
    values = are_values(prediction.labels)
    answers = prediction.logits if values else prediction.classes
    correct = pattern_accuracy.correctness(answers, prediction.labels)
    agrees = pattern_accuracy.correctness(answers, prediction.expected)
    doubt = agrees
    if not values:
        logs = jax.nn.log_softmax(prediction.logits)
        own = jnp.maximum(prediction.expected, 0)[..., None]
        doubt = -jnp.take_along_axis(logs, own, axis=-1)[..., 0]
    return jnp.stack([doubt, correct, agrees], axis=-1)
