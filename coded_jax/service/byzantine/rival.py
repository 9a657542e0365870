"""Measures ApproxIFER's error locator on its own code: several images coded together.

The worker is the whole base model, and one of the logits that come back is wrong.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from coded_jax.codes import curves
from coded_jax.data.groups import group_split
from coded_jax.inference.pipeline import inputs_of
from coded_jax.runs.coded_model import CodedModel
from coded_jax.service.byzantine.calibration import CHUNK
from coded_jax.service.byzantine.faults import FAULTS, STANDARD, Fault
from coded_jax.types import Split


def added_noise(key: jax.Array, results: jax.Array) -> jax.Array:
    """Adds normal noise of standard deviation 10, as ApproxIFER's experiments do."""
    return results + 10 * jax.random.normal(key, results.shape)


KINDS: dict[str, Fault] = {
    **{name: FAULTS[name] for name in STANDARD},
    "noise of 10 added": added_noise,
}
"""Another image's result is that of another group."""


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
    n = curves.workers(k, 1)
    groups = group_split(split, k)
    images = groups.images.reshape(len(groups.labels), k, *split.images.shape[1:])
    encoding = jnp.asarray(curves.encoding(k, n), jnp.float32)
    pipeline = model.pipeline._replace(mesh=None)

    def logits_of(inputs: jax.Array) -> jax.Array:
        features = pipeline.base.f_conv(model.frozen, inputs)
        return pipeline.base.head(model.frozen, features.astype(jnp.float32))

    @jax.jit
    def compute(images: jax.Array) -> tuple[jax.Array, jax.Array]:
        inputs = inputs_of(pipeline, images.reshape(-1, *images.shape[2:]))
        coded = jnp.einsum("nk,gk...->gn...", encoding, inputs.reshape(images.shape))
        results = logits_of(coded.reshape(-1, *coded.shape[2:]))
        return logits_of(inputs), results.reshape(len(images), n, -1)

    size = CHUNK // k
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
        # Moments are those of the logits of a result, which has no positions.
        own = jnp.asarray(results[:, i])[:, :, None, None]
        key = jax.random.fold_in(jax.random.key(seed), i)
        wrong = results.copy()
        wrong[:, i] = fault(key, own)[:, :, 0, 0]
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
        "faults": {kind: mean(fault) for kind, fault in KINDS.items()},
    }
