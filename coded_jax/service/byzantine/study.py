"""Measures what a check finds: every kind of fault, in each result of every image."""

from __future__ import annotations

import collections
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from coded_jax.codes import erasures
from coded_jax.evaluation.predictions import classes_of
from coded_jax.inference.stages import end_stage
from coded_jax.runs.coded_model import CodedModel
from coded_jax.service.byzantine import alarm
from coded_jax.service.byzantine.check import Check, checked_patterns
from coded_jax.service.byzantine.faults import FAULTS
from coded_jax.service.byzantine.results import (
    CHUNK,
    Results,
    answers_from,
    results_of_stage,
)
from coded_jax.types import Split

REPEATS = 200


def measure(
    model: CodedModel, check: Check, split: Split, seed: int = 0
) -> dict[str, Any]:
    """Measures detection, names, false alarms and answers on labelled images.

    In every image one of the n results of one stage is wrong; kinds, results and
    stages take turns, and each counts alike. Numbers are fractions of images.

    Args:
      model: the coded inference.
      check: its check.
      split: images that neither the model nor the check has seen.
      seed: of the faults.

    Returns:
      `false_alarms`: for each number of losses, the mean and the largest over the sets
      of results, where no result is wrong. `faults`: for each kind `found`, `worst`
      over the results, `named` and `misnamed` of those that were found, `believed`, the
      accuracy with the wrong result, `left_out`, that without the named one, of those
      with a name, and `unnoticed`, images without an alarm whose class is another one
      than with right results. `right`: the accuracy without a wrong result.
    """
    model = model._replace(pipeline=model.pipeline._replace(mesh=None))
    right, alarms, faults = [], collections.defaultdict(list), {}
    for kind in FAULTS:
        faults[kind] = collections.defaultdict(list)
    for start in range(0, len(split.labels), CHUNK):
        part = slice(start, start + CHUNK)
        images, labels = split.images[part], split.labels[part]
        key = jax.random.fold_in(jax.random.key(seed), start)
        chunk = _Chunk(model, check, images, labels)
        right.append(chunk.right)
        for pattern in checked_patterns(model.pipeline):
            alarms[pattern].append(chunk.false_alarms(pattern))
        for kind in FAULTS:
            for place in chunk.places():
                found = chunk.with_fault(kind, place, key)
                faults[kind][place].append(found)
    return {
        "images": len(split.labels),
        "right": float(np.concatenate(right).mean()),
        "false_alarms": _false_alarms(alarms),
        "faults": {kind: _summary(found) for kind, found in faults.items()},
    }


class _Chunk:
    """Some images, and the right results of all stages."""

    def __init__(
        self, model: CodedModel, check: Check, images: np.ndarray, labels: np.ndarray
    ) -> None:
        self._model, self._check, self._labels = model, check, labels
        pipeline = model.pipeline
        stages, n, batch = len(pipeline.stages), pipeline.n, len(images)
        self._all = np.ones((stages, n, batch), bool)
        own = (model.frozen, model.params, images, self._all)
        self._results = [results_of_stage(pipeline, i, *own) for i in range(stages)]
        self._classes = self._answers(0, self._results[0], self._all)
        self.right = self._classes == labels

    def places(self) -> list[tuple[int, int]]:
        """Returns stage and number of each result."""
        stages, n, _ = self._all.shape
        return [(stage, i) for stage in range(stages) for i in range(n)]

    def false_alarms(self, pattern: erasures.Pattern) -> np.ndarray:
        """Returns the mask of images with an alarm in any stage, bool `[B]`."""
        arrived = erasures.available(pattern, self._all.shape[1])[:, 0]
        found = [
            self._call(alarm.inspect, stage, results, arrived).suspicious
            for stage, results in enumerate(self._results)
        ]
        return np.any(found, axis=0)

    def with_fault(
        self, kind: str, place: tuple[int, int], key: jax.Array
    ) -> dict[str, np.ndarray]:
        """Puts a fault into a result of each image, and returns what is found."""
        stage, i = place
        key = jax.random.fold_in(jax.random.fold_in(key, stage), i)
        features, kept = self._results[stage]
        wrong = features.at[i].set(FAULTS[kind](key, features[i]))
        results, arrived = Results(wrong, kept), self._all[0, :, 0]
        found = np.asarray(
            self._call(alarm.inspect, stage, results, arrived).suspicious
        )
        named = np.asarray(self._call(alarm.name_culprit, stage, results, arrived))
        named = np.where(found, named, alarm.UNNAMED)
        rest = self._all.copy()
        rest[stage] &= np.arange(len(features))[:, None] != named[None]
        believed = self._answers(stage, results, self._all)
        left_out = self._answers(stage, results, rest)
        return {
            "found": found,
            "named": named == i,
            "misnamed": (named != i) & (named != alarm.UNNAMED),
            "believed": believed == self._labels,
            "left_out": left_out == self._labels,
            "unnoticed": ~found & (believed != self._classes),
        }

    def _call(
        self, function: Callable, stage: int, results: Results, arrived: np.ndarray
    ) -> Any:
        model, check = self._model, self._check.stages[stage]
        own = (check, model.params[stage], tuple(results.features), arrived)
        return function(model.pipeline, stage, *own, results.kept)

    def _answers(self, stage: int, results: Results, mask: np.ndarray) -> np.ndarray:
        model = self._model
        own = (model.frozen, model.params, results, mask)
        return np.asarray(classes_of(answers_from(model.pipeline, stage, *own)))


def _false_alarms(alarms: dict[erasures.Pattern, list[np.ndarray]]) -> dict[str, Any]:
    rates = {p: float(np.concatenate(found).mean()) for p, found in alarms.items()}
    by_lost = collections.defaultdict(list)
    for pattern, rate in rates.items():
        by_lost[str(len(pattern))].append(rate)
    return {
        lost: {"mean": float(np.mean(own)), "worst": max(own)}
        for lost, own in by_lost.items()
    }


def _summary(by_place: dict[Any, list[dict[str, np.ndarray]]]) -> dict[str, Any]:
    """Returns the numbers of one kind of fault."""
    joined = {
        place: {name: np.concatenate([x[name] for x in own]) for name in own[0]}
        for place, own in by_place.items()
    }
    mean = lambda name: float(np.mean([own[name].mean() for own in joined.values()]))
    found = sum(own["found"].sum() for own in joined.values())
    named = sum((own["named"] | own["misnamed"]).sum() for own in joined.values())
    right = sum(own["named"].sum() for own in joined.values())
    left_out = sum(
        own["left_out"][own["named"] | own["misnamed"]].sum() for own in joined.values()
    )
    return {
        "found": mean("found"),
        "worst": float(min(own["found"].mean() for own in joined.values())),
        "named": float(right / max(1, found)),
        "misnamed": float((named - right) / max(1, found)),
        "believed": mean("believed"),
        "left_out": float(left_out / named) if named else None,
        "unnoticed": mean("unnoticed"),
    }


def milliseconds(
    model: CodedModel, check: Check, images: np.ndarray
) -> dict[str, float]:
    """Measures the median time of the parts of all stages for a batch of images.

    Returns:
      `inspect` and `name`, of `alarm`; `decode`, the decoder where a data result is
      lost, and `merge`, where none is, as in most requests.
    """
    model = model._replace(pipeline=model.pipeline._replace(mesh=None))
    stages = range(len(model.pipeline.stages))
    parts = [_stage_milliseconds(model, check, number, images) for number in stages]
    return {name: sum(part[name] for part in parts) for name in parts[0]}


def _stage_milliseconds(
    model: CodedModel, check: Check, number: int, images: np.ndarray
) -> dict[str, float]:
    pipeline, params = model.pipeline, model.params[number]
    stage, n = pipeline.stages[number], pipeline.n
    everything = np.ones((len(pipeline.stages), n, len(images)), bool)
    own = (model.frozen, model.params, images, everything)
    features, kept = results_of_stage(pipeline, number, *own)
    shares, arrived = tuple(features), jnp.ones(n, bool)
    checked = (pipeline, number, check.stages[number], params, shares, arrived, kept)
    decode = jax.jit(lambda params, x, mask: end_stage(stage, params, x, mask, kept))
    one_lost = arrived.at[0].set(False)
    calls = {
        "inspect": lambda: alarm.inspect(*checked),
        "name": lambda: alarm.name_culprit(*checked),
        "merge": lambda: decode(params, features, arrived[:, None]),
        "decode": lambda: decode(params, features, one_lost[:, None]),
    }
    return {name: _median_milliseconds(call) for name, call in calls.items()}


def _median_milliseconds(call: Callable[[], Any]) -> float:
    jax.block_until_ready(call())
    times = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - begun)
    return 1e3 * float(np.median(times))
