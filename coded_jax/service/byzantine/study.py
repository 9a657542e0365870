"""Measures what a check finds: every kind of fault, in each result of every image."""

from __future__ import annotations

import collections
import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from coded_jax.codes import erasures
from coded_jax.evaluation.predictions import classes_of
from coded_jax.inference.pipeline import Pipeline, Results, classify, from_decoder
from coded_jax.inference.stages import end_stage
from coded_jax.runs.coded_model import CodedModel
from coded_jax.service.byzantine import detection
from coded_jax.service.byzantine.calibration import CHUNK, results_of_stage
from coded_jax.service.byzantine.check import Check, checked_patterns
from coded_jax.service.byzantine.faults import FAULTS
from coded_jax.types import PyTree, Split

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
    chunks = []
    for start in range(0, len(split.labels), CHUNK):
        part = slice(start, start + CHUNK)
        key = jax.random.fold_in(jax.random.key(seed), start)
        chunk = Split(split.images[part], split.labels[part])
        chunks.append(_measure_chunk(model, check, chunk, key))
    joined = lambda *parts: np.concatenate(parts, axis=-1)
    measured = jax.tree.map(joined, *chunks)
    rates = collections.defaultdict(list)
    for pattern, masks in zip(
        checked_patterns(model.pipeline), measured["alarms"], strict=True
    ):
        rates[str(len(pattern))].append(float(masks.mean()))
    return {
        "images": len(split.labels),
        "right": float(measured["right"].mean()),
        "false_alarms": {
            lost: {"mean": float(np.mean(of_sets)), "worst": max(of_sets)}
            for lost, of_sets in rates.items()
        },
        "faults": {kind: _summary(measured["faults"][kind]) for kind in FAULTS},
    }


def _measure_chunk(
    model: CodedModel, check: Check, split: Split, key: jax.Array
) -> dict[str, Any]:
    """Measures some images.

    Returns:
      Masks: `right` bool `[B]`; `alarms` bool `[P, B]`, of each of the checked patterns
      without a wrong result; and of each kind in `faults` for each result of each stage
      bool `[S n, B]`, see `measure_check`, where the last three are of the class of the
      answer.
    """
    pipeline, stages = model.pipeline, range(len(model.pipeline.stages))
    everything = np.ones((len(stages), pipeline.n, len(split.labels)), bool)
    of_stages = _results_of_stages(model, split.images)

    def ask(
        function: Callable, stage: int, results: Results, arrived: np.ndarray
    ) -> Any:
        coded, params = pipeline.stages[stage], model.params[stage]
        return function(coded, check.stages[stage], params, results, arrived)

    def has_alarm(pattern: erasures.Pattern) -> np.ndarray:
        arrived = erasures.available(pattern, pipeline.n)[:, 0]
        alarms = [ask(detection.inspect, i, of_stages[i], arrived) for i in stages]
        return np.any([own.suspicious for own in alarms], axis=0)

    def classes(stage: int, results: Results, mask: np.ndarray) -> np.ndarray:
        variables = {"frozen": model.frozen, "params": model.params}
        own = _classes_from(pipeline, results, mask, number=stage, **variables)
        return np.asarray(own)

    right = classes(0, of_stages[0], everything)

    def with_fault(kind: str, stage: int, i: int) -> dict[str, np.ndarray]:
        """Puts a fault into a result of each image, and returns what is found."""
        own_key = jax.random.fold_in(jax.random.fold_in(key, stage), i)
        features, kept = of_stages[stage]
        wrong = FAULTS[kind](own_key, features[i])
        results = Results(features.at[i].set(wrong), kept)
        arrived = everything[0, :, 0]
        found = np.asarray(ask(detection.inspect, stage, results, arrived).suspicious)
        culprits = ask(detection.name_culprit, stage, results, arrived)
        culprits = np.where(found, culprits, detection.UNNAMED)
        rest = everything.copy()
        rest[stage] &= np.arange(pipeline.n)[:, None] != culprits
        believed = classes(stage, results, everything)
        return {
            "found": found,
            "named": culprits == i,
            "misnamed": (culprits != i) & (culprits != detection.UNNAMED),
            "believed": believed == split.labels,
            "left_out": classes(stage, results, rest) == split.labels,
            "unnoticed": ~found & (believed != right),
        }

    faults = {}
    for kind in FAULTS:
        outcomes = [with_fault(kind, i, j) for i in stages for j in range(pipeline.n)]
        faults[kind] = jax.tree.map(lambda *masks: np.stack(masks), *outcomes)
    alarms = np.stack([*map(has_alarm, checked_patterns(pipeline))])
    return {"right": right == split.labels, "alarms": alarms, "faults": faults}


def _results_of_stages(model: CodedModel, images: np.ndarray) -> list[Results]:
    """Returns the right results of all stages."""
    stages, own = len(model.pipeline.stages), (model.frozen, model.params)
    everything = np.ones((stages, model.pipeline.n, len(images)), bool)
    run = functools.partial(results_of_stage, model.pipeline, *own, images)
    return [run(number=number, available=everything) for number in range(stages)]


@functools.partial(jax.jit, static_argnames=("pipeline", "number"))
def _classes_from(
    pipeline: Pipeline,
    results: Results,
    available: jax.Array,
    *,
    number: int,
    frozen: PyTree,
    params: PyTree,
) -> jax.Array:
    """Goes on from the results of a coded stage to classes."""
    later = pipeline._replace(stages=pipeline.stages[number:])
    state = from_decoder(later, frozen, params[number:], results, available[number:])
    return classes_of(classify(pipeline, frozen, params, state, available)[1])


def _summary(masks: dict[str, np.ndarray]) -> dict[str, Any]:
    """Returns the numbers of one kind of fault."""
    found, named = masks["found"].sum(), masks["named"] | masks["misnamed"]
    left_out = masks["left_out"][named]
    return {
        "found": float(masks["found"].mean()),
        "worst": float(masks["found"].mean(axis=1).min()),
        "named": float(masks["named"].sum() / max(1, found)),
        "misnamed": float(masks["misnamed"].sum() / max(1, found)),
        "believed": float(masks["believed"].mean()),
        "left_out": float(left_out.mean()) if named.any() else None,
        "unnoticed": float(masks["unnoticed"].mean()),
    }


def milliseconds(
    model: CodedModel, check: Check, images: np.ndarray
) -> dict[str, float]:
    """Measures the median time of the parts of all stages for a batch of images.

    Returns:
      `inspect` and `name`, of `detection`; `decode`, the decoder where a data result is
      lost, and `merge`, where none is, as in most requests.
    """
    model = model._replace(pipeline=model.pipeline._replace(mesh=None))
    n = model.pipeline.n
    arrived, lost = erasures.available((), n), erasures.available((0,), n)
    decode = jax.jit(end_stage, static_argnums=0)

    def of_stage(number: int, results: Results) -> dict[str, float]:
        stage, params = model.pipeline.stages[number], model.params[number]
        sent = results._replace(features=tuple(results.features))
        ask = lambda f: f(stage, check.stages[number], params, sent, arrived[:, 0])
        end = lambda mask: decode(stage, params, results.features, mask, results.kept)
        return {
            "inspect": _milliseconds(lambda: ask(detection.inspect)),
            "name": _milliseconds(lambda: ask(detection.name_culprit)),
            "merge": _milliseconds(lambda: end(arrived)),
            "decode": _milliseconds(lambda: end(lost)),
        }

    times = [of_stage(*x) for x in enumerate(_results_of_stages(model, images))]
    return {part: sum(own[part] for own in times) for part in times[0]}


def _milliseconds(call: Callable[[], Any]) -> float:
    """Returns the median time of a call after the first one."""
    jax.block_until_ready(call())
    times = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - begun)
    return 1e3 * float(np.median(times))
