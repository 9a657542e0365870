"""Which views? Sets of them compared by the moments of many candidates.

All candidates are computed once; the fit of any subset of them is a part of the same
equations, so that a set costs no more than solving these.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from coded_jax.codes.erasures import patterns
from coded_jax.codes.least_squares import Centred
from coded_jax.evaluation import predictions
from coded_jax.inference.pipeline import Pipeline
from coded_jax.types import PyTree, View, ViewPlan


def candidates(shape: tuple[int, int, int], size: tuple[int, int]) -> list[View]:
    """Returns parts of images that may become views: crops of the size of a view at
    both ends and in the middle of each axis; the whole image, and mirrored; and parts
    between these in size, in the corners and in the middle.

    Args:
      shape: `(H, W, C)`.
      size: `(h, w)` of a view.
    """

    def crops(height: int, width: int) -> Iterator[View]:
        rows, columns = shape[0] - height, shape[1] - width
        tops, lefts = (sorted({0, x // 2, x}) for x in (rows, columns))
        for top, left in itertools.product(tops, lefts):
            yield View(top, left, height, width)

    whole = View(0, 0, *shape[:2])
    between = [*crops(*((x + y) // 2 for x, y in zip(shape, size, strict=False)))]
    chosen = [*crops(*size), whole, whole._replace(mirrored=True), *between[::2]]
    return [*dict.fromkeys(chosen)]


def of_views(pipeline: Pipeline, views: Sequence[View]) -> Pipeline:
    """Returns a pipeline of views with others, any number of them, and no code."""
    (stage,), k = pipeline.stages, pipeline.k
    assert isinstance(stage.plan, ViewPlan)
    plan = stage.plan.__class__(
        **{**stage.plan.__dict__, "views": tuple(views), "r": len(views) - k}
    )
    coding = pipeline.coding._replace(r=plan.r)
    changed = pipeline._replace(stages=(stage._replace(plan=plan),), coding=coding)
    return predictions.without_code(changed)


class Scores(NamedTuple):
    """Doubt, accuracy and agreement of answers from some results.

    Attributes:
      doubt: mean cross-entropy with the network's own classes.
      accuracy, agreement: fractions that are right, or as those of the network.
    """

    doubt: float
    accuracy: float
    agreement: float


class Candidates:
    """Candidates on the images of a part of a data set, to score any subset of.

    Args:
      pipeline: from `of_views`.
      frozen: variables of the base model.
      centred: of the moments of the training part.
      arrays: `images` and `labels` of classes, of the part that scores.
      ridge: the penalty of all fits.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        frozen: PyTree,
        centred: Centred,
        arrays: dict[str, Any],
        ridge: float,
    ) -> None:
        self._pipeline, self._frozen = pipeline, frozen
        self._centred, self._ridge = centred, ridge
        results, expected = [], []
        for chunk in predictions.uncoded_chunks(pipeline, frozen, arrays):
            of_chunk = predictions.run_devices(pipeline, frozen, ({},), chunk.images)
            results.append(np.asarray(of_chunk.features, np.float32))
            expected.append(np.asarray(chunk.expected))
        labels = np.asarray(arrays["labels"])
        joined = np.concatenate(results, axis=1)[:, : len(labels)]
        self._results = jnp.asarray(joined.reshape(*joined.shape[:2], -1))
        self._expected = jnp.asarray(np.concatenate(expected)[: len(labels)])
        self._labels = jnp.asarray(labels)
        self.base_accuracy = float((self._expected == self._labels).mean())
        self._known: dict[tuple[int, ...], Scores] = {}

    def score(self, arrived: Sequence[int]) -> Scores:
        """Returns the scores of answers from some candidates' results."""
        key = tuple(sorted(arrived))
        if key not in self._known:
            weights, bias = self._centred.estimate(key, self._ridge)
            sums = _scores(
                self._pipeline,
                self._frozen,
                self._results[jnp.array(key)],
                jnp.asarray(weights, jnp.float32),
                jnp.asarray(bias, jnp.float32),
                self._expected,
                self._labels,
            )
            self._known[key] = Scores(*map(float, sums))
        return self._known[key]

    def patterns(self, views: Sequence[int], most_lost: int) -> list[list[Scores]]:
        """Returns the scores of all patterns that lose 0, 1, .. `most_lost` of some
        candidates."""
        lost = ([set(p) for p in patterns(len(views), l)] for l in range(most_lost + 1))
        return [
            [self.score([v for i, v in enumerate(views) if i not in p]) for p in own]
            for own in lost
        ]

    def doubt(self, views: Sequence[int], most_lost: int) -> float:
        """Returns the mean doubt of a set, all numbers of lost results alike."""
        scores = self.patterns(views, most_lost)
        return float(np.mean([np.mean([x.doubt for x in own]) for own in scores]))


@functools.partial(jax.jit, static_argnums=0)
def _scores(
    pipeline: Pipeline,
    frozen: PyTree,
    results: jax.Array,
    weights: jax.Array,
    bias: jax.Array,
    expected: jax.Array,
    labels: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    (stage,) = pipeline.stages
    decoded = jnp.einsum("nbq,nqp->bp", results, weights) + bias[None]
    features = decoded.reshape(-1, *stage.plan.features_shape)
    _, logits = pipeline.run_tail(frozen, features)
    logs = jax.nn.log_softmax(logits)
    doubt = -jnp.take_along_axis(logs, expected[:, None], axis=1).mean()
    classes = logits.argmax(axis=1)
    return doubt, (classes == labels).mean(), (classes == expected).mean()


class Found(NamedTuple):
    """A set of views with its scores.

    Attributes:
      views: numbers of the candidates, the data views first.
      doubt: see `Candidates.doubt`.
    """

    views: tuple[int, ...]
    doubt: float


def parities(
    candidates: Candidates, data: Sequence[int], total: int, r: int
) -> list[Found]:
    """Tries every choice of r parity views beside some data views.

    Args:
      candidates: to choose from.
      data: numbers of the data views.
      total: number of candidates.
      r: parity views.

    Returns:
      All sets, the one of least doubt first.
    """
    others = [i for i in range(total) if i not in data]
    sets = [(*data, *more) for more in itertools.combinations(others, r)]
    found = [Found(views, candidates.doubt(views, r)) for views in sets]
    return sorted(found, key=lambda own: own.doubt)


def greedy(candidates: Candidates, total: int, n: int, r: int) -> list[Found]:
    """Chooses n views one after the other, each so that the doubt becomes least.

    The views need not cover the image, but for that they do so best.

    Returns:
      The sets of 1, 2, .. n views; with up to r losses, of which one always arrives.
    """
    chosen: tuple[int, ...] = ()
    found = []
    for size in range(1, n + 1):
        most = min(r, size - 1)
        sets = [(*chosen, i) for i in range(total) if i not in chosen]
        best = min((candidates.doubt(views, most), views) for views in sets)
        chosen = best[1]
        found.append(Found(chosen, best[0]))
    return found
