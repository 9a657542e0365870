"""Measures what a check finds: every kind of fault, in each result of every image.

And what ApproxIFER's error locator finds of the same faults, on its own code: several
images coded together, each worker with the whole base model.
"""

from __future__ import annotations

import collections
import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from coded_jax.codes import curves, erasures
from coded_jax.data.groups import group_split
from coded_jax.evaluation.predictions import classes_of
from coded_jax.inference.pipeline import (
    Results,
    classify,
    from_decoder,
    inputs_of,
)
from coded_jax.inference.stages import end_stage
from coded_jax.runs.coded_model import CodedModel
from coded_jax.service.byzantine import detection
from coded_jax.service.byzantine.calibration import CHUNK, results_of_stage
from coded_jax.service.byzantine.detection import Check, checked_patterns
from coded_jax.service.faults import corrupted
from coded_jax.types import Split

REPEATS = 200

Fault = Callable[[np.ndarray, np.random.Generator], np.ndarray]
"""`(results [B, M, M', D] of one piece, rng) -> wrong ones`, float32."""


def of_another_image(results: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns for each image the result of another one of the batch."""
    batch = len(results)
    return results[(np.arange(batch) + rng.integers(1, batch, batch)) % batch]


def lost_value(results: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Puts zero in the place of the largest value of each image."""
    flat = results.reshape(len(results), -1).copy()
    flat[np.arange(len(flat)), np.abs(flat).argmax(axis=1)] = 0
    return flat.reshape(results.shape)


def of_service(kind: str) -> Fault:
    """Returns a kind of `coded_jax.service.faults`."""
    return lambda results, rng: corrupted(kind, results, results, rng)


FAULTS: dict[str, Fault] = {
    "another image's": of_another_image,
    "noise": of_service("noise"),
    "top exponent bit": of_service("bit"),
    "zeros": of_service("zeros"),
    # With zeros for values below zero, as a ReLU gives them.
    "rectified noise": lambda *own: np.maximum(of_service("noise")(*own), 0),
    "a lost value": lost_value,
}
"""Kinds of wrong results, which take the place of a right one, by name."""

STANDARD = (*FAULTS,)[:4]
"""Names of the kinds that a check has to find; the others show how much it owes to two
facts: that no right value is below zero, and which magnitudes there are."""

LOCATED: dict[str, Fault] = {
    **{name: FAULTS[name] for name in STANDARD},
    "noise of 10 added": lambda results, rng: (
        results + rng.normal(0, 10, results.shape).astype(results.dtype)
    ),
}
"""Those of the locator. Another image's result is that of another group; the last one
is of ApproxIFER's experiments."""


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
        chunk = Split(split.images[part], split.labels[part])
        rng = np.random.default_rng([seed, start])
        chunks.append(_measure_chunk(model, check, chunk, rng))
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
    model: CodedModel, check: Check, split: Split, rng: np.random.Generator
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
        later = pipeline._replace(stages=pipeline.stages[stage:])
        frozen, params = model.frozen, model.params[stage:]
        state = _from_decoder(later, frozen, params, results, mask[stage:])
        _, logits = _classify(pipeline, frozen, params, state, mask)
        return np.asarray(classes_of(logits))

    right = classes(0, of_stages[0], everything)

    def with_fault(kind: str, stage: int, i: int) -> dict[str, np.ndarray]:
        """Puts a fault into a result of each image, and returns what is found."""
        features, kept = of_stages[stage]
        wrong = FAULTS[kind](np.asarray(features[i]), rng)
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


_from_decoder = jax.jit(from_decoder, static_argnums=0)
_classify = jax.jit(classify, static_argnums=0)


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

    def median(call: Callable[[], Any]) -> float:
        """Returns the median time of a call after the first one."""
        jax.block_until_ready(call())
        times = []
        for _ in range(REPEATS):
            begun = time.perf_counter()
            jax.block_until_ready(call())
            times.append(time.perf_counter() - begun)
        return 1e3 * float(np.median(times))

    def of_stage(number: int, results: Results) -> dict[str, float]:
        stage, params = model.pipeline.stages[number], model.params[number]
        sent = results._replace(features=tuple(results.features))
        ask = lambda f: f(stage, check.stages[number], params, sent, arrived[:, 0])
        end = lambda mask: decode(stage, params, results.features, mask, results.kept)
        return {
            "inspect": median(lambda: ask(detection.inspect)),
            "name": median(lambda: ask(detection.name_culprit)),
            "merge": median(lambda: end(arrived)),
            "decode": median(lambda: end(lost)),
        }

    times = [of_stage(*x) for x in enumerate(_results_of_stages(model, images))]
    return {part: sum(own[part] for own in times) for part in times[0]}


def measure_locator(
    model: CodedModel, split: Split, k: int, seed: int = 0
) -> dict[str, Any]:
    """Measures the locator of one wrong result, with as many workers as it needs.

    Args:
      model: whose base model the workers have.
      split: labelled images.
      k: images that are coded together.
      seed: of the faults.

    Returns:
      `workers`; `base`, the accuracy of the base model; `right`, that of coded answers
      of all workers; `always_located`, that with the locator where no result is wrong;
      `faults`: for each kind `named`, the wrong result among all, and the accuracies
      `believed`, `left_out` with the located result left out.
    """
    n, groups = curves.workers(k, 1), group_split(split, k)
    images = groups.images.reshape(-1, *split.images.shape[1:])
    encoding = jnp.asarray(curves.encoding(k, n), jnp.float32)
    pipeline = model.pipeline._replace(mesh=None)

    def logits_of(inputs: jax.Array) -> jax.Array:
        features = pipeline.base.f_conv(model.frozen, inputs)
        return pipeline.base.head(model.frozen, features.astype(jnp.float32))

    @jax.jit
    def compute(images: jax.Array) -> tuple[jax.Array, jax.Array]:
        inputs = inputs_of(pipeline, images)
        grouped = inputs.reshape(-1, k, *inputs.shape[1:])
        coded = jnp.einsum("nk,gk...->gn...", encoding, grouped)
        results = logits_of(coded.reshape(-1, *inputs.shape[1:]))
        return logits_of(inputs), results.reshape(len(grouped), n, -1)

    size = CHUNK // k * k
    parts = [compute(images[i : i + size]) for i in range(0, len(images), size)]
    base, results = (np.concatenate(x) for x in zip(*parts, strict=True))
    # Row i decodes without result i, the last one with all.
    masks = np.append(~np.eye(n, dtype=bool), np.ones((1, n), bool), axis=0)
    decoders = np.stack([curves.decoding(k, n, mask) for mask in masks])
    believed = np.full(len(results), -1)

    def accuracy(classes: np.ndarray) -> float:
        return float((classes == groups.labels)[groups.labels >= 0].mean())

    def without(results: np.ndarray, left_out: np.ndarray) -> float:
        """Returns the accuracy without a result of each group, -1 for none."""
        shown = np.where(np.isfinite(results), results, 0).astype(np.float64)
        logits = np.einsum("gkn,gnc->gkc", decoders[left_out], shown)
        return accuracy(logits.argmax(-1))

    def with_fault(fault: Fault, i: int) -> dict[str, float]:
        """Puts a fault into result i. One that is not finite is left out before the
        locator, as a service does, and named."""
        wrong = results.copy()
        # Moments are those of the logits of a result, which has no positions.
        own = results[:, i, :, None, None]
        wrong[:, i] = fault(own, np.random.default_rng([seed, i]))[..., 0, 0]
        finite = np.isfinite(wrong[:, i]).all(axis=-1)
        safe = np.clip(np.where(np.isfinite(wrong), wrong, 0), -1e30, 1e30)
        located = np.where(finite, curves.locate(safe, k)[:, 0], i)
        return {
            "named": float((located == i).mean()),
            "believed": without(safe, np.where(finite, believed, i)),
            "left_out": without(safe, located),
        }

    def mean(fault: Fault) -> dict[str, float]:
        outcomes = [with_fault(fault, i) for i in range(n)]
        return jax.tree.map(lambda *values: float(np.mean(values)), *outcomes)

    return {
        "k": k,
        "workers": n,
        "groups": len(results),
        "base": accuracy(base.argmax(-1).reshape(-1, k)),
        "right": without(results, believed),
        "always_located": without(results, curves.locate(results, k)[:, 0]),
        "faults": {kind: mean(fault) for kind, fault in LOCATED.items()},
    }
