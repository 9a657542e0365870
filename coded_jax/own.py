"""A code for a CNN of the user's own, with parameters that are trained already."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from coded_jax import experiment, serving
from coded_jax.config import OWN, Config
from coded_jax.data import Dataset
from coded_jax.types import BaseModel, Block, PyTree


def protect(
    f_conv: Block | Sequence[Block],
    head: Callable[[PyTree, jax.Array], jax.Array],
    variables: PyTree,
    dataset: Dataset,
    *,
    workdir: str | os.PathLike,
    devices: int | None = None,
    mesh: tuple[int, int] | None = None,
    **settings: Any,
) -> serving.CodedModel:
    """Splits, codes, trains the code, and tries every erasure pattern.

    The workdir is that of `experiments/run.py`: killed, the same call goes on from
    there; finished, it only loads what is there.

    Args:
      f_conv: `(variables, images [B, H, W, C]) -> features [B, M*, M'*, D]`, of
        anything that `geometry` accepts; or several such blocks, each of which is given
        what the one before it made, for `stages`. Images come as
        `(images / 255 - mean) / std` with those of the data set.
      head: `(variables, features [B, M*, M'*, D]) -> logits [B, classes]`.
      variables: any pytree of arrays; stays as it is.
      dataset: its training part trains the code, its validation part chooses the
        epoch, its test part gives the results.
      workdir: folder for checkpoints and results.
      devices, mesh: see `placement.make_mesh`.
      settings: any other field of `Config`: `k`, `r`, `epochs`, `recipe`, ...

    Returns:
      The coded model; its `results` are the content of `results.json`.

    Raises:
      ValueError: a setting is out of range, or `f_conv` cannot be split.
    """
    blocks = (f_conv,) if callable(f_conv) else tuple(f_conv)
    base = BaseModel(lambda key, image_shape, classes: variables, blocks, head)
    named: dict[str, Any] = {"dataset": OWN, "base_model": OWN}
    config = Config(**{"recipe": "systematic", **settings, **named})
    own = experiment.Own(dataset, base, variables, fingerprint(variables, dataset))
    prepared = experiment.prepare(config, workdir, devices=devices, mesh=mesh, own=own)
    results = experiment.run(prepared)
    params = serving.best_params(
        prepared.folder, config, results, "code", prepared.pipeline.init
    )
    return serving.CodedModel(
        prepared.pipeline, prepared.variables, params, dataset.image_shape, results
    )


def fingerprint(variables: PyTree, dataset: Dataset) -> str:
    """16 hexadecimal digits that tell variables and data apart from others."""
    digest = hashlib.sha256(str(jax.tree.structure(variables)).encode())
    parts = (dataset.train, dataset.validation, dataset.test)
    arrays = [array for part in parts for array in (part.images, part.labels)]
    for leaf in (*jax.tree.leaves(variables), *arrays):
        array = np.ascontiguousarray(leaf)
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()[:16]
