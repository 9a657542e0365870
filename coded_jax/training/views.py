"""Fitting decoders of least squares: a pass over images, a penalty by validation.

The base model computes each image and its n views once, and what is kept of them are
sums: no step of training, no labels.
"""

from __future__ import annotations

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
from jax.sharding import Mesh

from coded_jax.codes import erasures
from coded_jax.codes.least_squares import Moments
from coded_jax.data.augmentation import AUGMENTATIONS
from coded_jax.devices import placement
from coded_jax.devices.meshes import padded_size
from coded_jax.evaluation import pattern_accuracy, predictions
from coded_jax.evaluation.predictions import Prediction, TrainedPipeline
from coded_jax.inference.pipeline import Pipeline
from coded_jax.types import PyTree, are_values

CHUNK = 250
RIDGES = (1e-3, 1e-2, 1e-1, 1.0)
"""Penalties that are tried, see `least_squares.solve`."""


class Sums(NamedTuple):
    """Moments of the images that have been seen so far.

    Attributes:
      seen: images, those of later passes included.
      moments: of them.
    """

    seen: int
    moments: Moments


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
) -> Iterator[Sums]:
    """Sums the moments of all views' results and of the features of the whole image,
    chunk by chunk.

    Args:
      pipeline: of views.
      frozen: variables of the base model.
      images: `[N, H, W, C]`, on the devices.
      passes: over them.
      begun: sums that it goes on from; those of no image if None.

    Yields:
      The sums up to each chunk's end; the last ones are those of all passes.
    """
    (stage,) = pipeline.stages
    outputs = [math.prod(x) for x in (stage.result_shape, stage.plan.features_shape)]
    total, goal = len(images), passes.images(len(images))
    size = padded_size(pipeline.mesh, min(CHUNK, total))
    seen, moments = begun or (0, Moments.zero(pipeline.n, *outputs))
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
        yield Sums(seen, moments)


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
    validation: dict[str, Any],
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
      validation: arrays of the validation part.
      ridges: penalties.
    """
    (stage,) = pipeline.stages
    assert stage.code.traits.fit is not None
    patterns = erasures.patterns_up_to(pipeline.n, pipeline.r)
    counts = np.array([len(pattern) for pattern in patterns])
    chunks = [*predictions.uncoded_chunks(pipeline, frozen, validation)]
    best, doubts = None, {}
    for ridge in ridges:
        params = (stage.code.traits.fit(moments, ridge),)
        params = placement.put_replicated(pipeline.mesh, params)
        means = predictions.measure(
            TrainedPipeline(pipeline, frozen, params),
            validation,
            patterns,
            _doubt,
            uncoded=chunks,
        )
        of_counts = [means[counts == l, 0].mean() for l in set(counts.tolist())]
        doubts[ridge] = float(np.mean(of_counts))
        if best is None or doubts[ridge] < doubts[best.ridge]:
            best = Choice(params, ridge, doubts, float(means[:, 1].mean()))
    assert best is not None
    return best


def _doubt(prediction: Prediction, parameter: jax.Array) -> jax.Array:
    """Returns the cross-entropy with the network's own class, or the squared difference
    from its values; and `correctness`: a `predictions.Statistic`."""
    values = are_values(prediction.labels)
    answers = prediction.logits if values else prediction.classes
    correct = pattern_accuracy.correctness(answers, prediction.labels)
    if values:
        doubt = pattern_accuracy.correctness(answers, prediction.expected)
    else:
        logs = jax.nn.log_softmax(prediction.logits)
        own = jnp.maximum(prediction.expected, 0)[..., None]
        doubt = -jnp.take_along_axis(logs, own, axis=-1)[..., 0]
    return jnp.stack([doubt, correct], axis=-1)
