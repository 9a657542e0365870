"""Measures what a check finds: every kind of fault, in each result of every image."""

from __future__ import annotations

import collections
import time
from collections.abc import Callable
from typing import Any, NamedTuple

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


def measure_check(
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
    right: list[np.ndarray] = []
    alarms = collections.defaultdict(list)
    outcomes = {kind: collections.defaultdict(list) for kind in FAULTS}
    for start in range(0, len(split.labels), CHUNK):
        part = slice(start, start + CHUNK)
        key = jax.random.fold_in(jax.random.key(seed), start)
        chunk = _Chunk(model, check, split.images[part], split.labels[part])
        right.append(chunk.right)
        for pattern in checked_patterns(model.pipeline):
            alarms[pattern].append(chunk.false_alarms(pattern))
        for kind in FAULTS:
            for place in np.ndindex(len(check.stages), model.pipeline.n):
                outcomes[kind][place].append(chunk.with_fault(kind, place, key))
    rates = collections.defaultdict(list)
    for pattern, masks in alarms.items():
        rates[str(len(pattern))].append(float(np.concatenate(masks).mean()))
    return {
        "images": len(split.labels),
        "right": float(np.concatenate(right).mean()),
        "false_alarms": {
            lost: {"mean": float(np.mean(of_sets)), "worst": max(of_sets)}
            for lost, of_sets in rates.items()
        },
        "faults": {kind: _summary(found) for kind, found in outcomes.items()},
    }


class _Outcome(NamedTuple):
    """The outcome of a fault, masks of images bool `[B]`; see `measure_check`, but that
    the last three are of the class of the answer."""

    found: np.ndarray
    named: np.ndarray
    misnamed: np.ndarray
    believed: np.ndarray
    left_out: np.ndarray
    unnoticed: np.ndarray


class _Chunk:
    """Some images, and the right results of all stages."""

    def __init__(
        self, model: CodedModel, check: Check, images: np.ndarray, labels: np.ndarray
    ) -> None:
        self._model, self._check, self._labels = model, check, labels
        pipeline = model.pipeline
        self._all = np.ones((len(pipeline.stages), pipeline.n, len(images)), bool)
        self._results = _results_of_stages(model, images, self._all)
        self._classes = self._answers(0, self._results[0], self._all)
        self.right = self._classes == labels

    def false_alarms(self, pattern: erasures.Pattern) -> np.ndarray:
        """Returns the mask of images with an alarm in any stage, bool `[B]`."""
        arrived = erasures.available(pattern, self._all.shape[1])[:, 0]
        alarms = [
            self._call(alarm.inspect, stage, results, arrived).suspicious
            for stage, results in enumerate(self._results)
        ]
        return np.any(alarms, axis=0)

    def with_fault(self, kind: str, place: tuple[int, ...], key: jax.Array) -> _Outcome:
        """Puts a fault into a result of each image, and returns what is found."""
        stage, i = place
        key = jax.random.fold_in(jax.random.fold_in(key, stage), i)
        features, kept = self._results[stage]
        results = Results(features.at[i].set(FAULTS[kind](key, features[i])), kept)
        arrived = self._all[0, :, 0]
        inspected = self._call(alarm.inspect, stage, results, arrived)
        found = np.asarray(inspected.suspicious)
        culprits = self._call(alarm.name_culprit, stage, results, arrived)
        culprits = np.where(found, np.asarray(culprits), alarm.UNNAMED)
        rest = self._all.copy()
        rest[stage] &= np.arange(len(features))[:, None] != culprits[None]
        believed = self._answers(stage, results, self._all)
        return _Outcome(
            found=found,
            named=culprits == i,
            misnamed=(culprits != i) & (culprits != alarm.UNNAMED),
            believed=believed == self._labels,
            left_out=self._answers(stage, results, rest) == self._labels,
            unnoticed=~found & (believed != self._classes),
        )

    def _call(
        self, function: Callable, stage: int, results: Results, arrived: np.ndarray
    ) -> Any:
        model, check = self._model, self._check.stages[stage]
        coded, params = model.pipeline.stages[stage], model.params[stage]
        return function(coded, check, params, results, arrived)

    def _answers(self, stage: int, results: Results, mask: np.ndarray) -> np.ndarray:
        pipeline, frozen, params = self._model[:3]
        logits = answers_from(pipeline, stage, frozen, params, results, available=mask)
        return np.asarray(classes_of(logits))


def _results_of_stages(
    model: CodedModel, images: np.ndarray, available: np.ndarray
) -> list[Results]:
    """Returns the right results of all stages."""
    return [
        results_of_stage(
            model.pipeline,
            number,
            model.frozen,
            model.params,
            images,
            available=available,
        )
        for number in range(len(model.pipeline.stages))
    ]


def _summary(by_place: dict[Any, list[_Outcome]]) -> dict[str, Any]:
    """Returns the numbers of one kind of fault."""
    places = [
        _Outcome(*map(np.concatenate, zip(*chunks, strict=True)))
        for chunks in by_place.values()
    ]
    every = _Outcome(*map(np.stack, zip(*places, strict=True)))
    mean = lambda masks: float(np.mean(masks.mean(axis=1)))
    has_name = every.named | every.misnamed
    found, named = every.found.sum(), has_name.sum()
    return {
        "found": mean(every.found),
        "worst": float(every.found.mean(axis=1).min()),
        "named": float(every.named.sum() / max(1, found)),
        "misnamed": float(every.misnamed.sum() / max(1, found)),
        "believed": mean(every.believed),
        "left_out": float(every.left_out[has_name].sum() / named) if named else None,
        "unnoticed": mean(every.unnoticed),
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
    pipeline, total = model.pipeline, collections.defaultdict(float)
    everything = np.ones((len(pipeline.stages), pipeline.n, len(images)), bool)
    arrived = jnp.ones(pipeline.n, bool)
    lost = arrived.at[0].set(False)
    decode = jax.jit(end_stage, static_argnums=0)
    for number, results in enumerate(_results_of_stages(model, images, everything)):
        own = (pipeline.stages[number], check.stages[number], model.params[number])
        sent = results._replace(features=tuple(results.features))
        total["inspect"] += _milliseconds(alarm.inspect, *own, sent, arrived)
        total["name"] += _milliseconds(alarm.name_culprit, *own, sent, arrived)
        for part, mask in (("merge", arrived), ("decode", lost)):
            features, kept = results
            total[part] += _milliseconds(
                decode, own[0], own[2], features, mask[:, None], kept
            )
    return dict(total)


def _milliseconds(function: Callable, *arguments: Any) -> float:
    """Returns the median time of a call after the first one."""
    jax.block_until_ready(function(*arguments))
    times = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        times.append(time.perf_counter() - begun)
    return 1e3 * float(np.median(times))
