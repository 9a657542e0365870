"""A code for a CNN of the user's own, with parameters that are trained already."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from coded_jax.checks import first_line
from coded_jax.runs import coded_model, experiment
from coded_jax.runs.config import Config
from coded_jax.runs.prepare import Own, prepare
from coded_jax.runs.ranges import OWN
from coded_jax.types import BaseModel, Block, Dataset, PyTree


def protect(
    f_conv: Block | Sequence[Block],
    head: Callable[[PyTree, jax.Array], jax.Array],
    variables: PyTree,
    dataset: Dataset,
    *,
    workdir: str | os.PathLike,
    devices: int | None = None,
    mesh: tuple[int, int] | None = None,
    console: Console | None = None,
    **settings: Any,
) -> coded_model.CodedModel:
    """Splits, codes, trains the code, and tries every erasure pattern.

    The workdir is that of `experiments/run.py`: killed, the same call goes on from
    there; finished, it only loads what is there.

    Args:
      f_conv: `(variables, images [B, H, W, C]) -> features [B, M*, M'*, D]`, of
        anything that `geometry` accepts; or several such blocks, each of which is given
        what the one before it made, for `stages`. Images come as
        `(images / 255 - mean) / std` with those of the data set.
      head: `(variables, features [B, M*, M'*, D]) -> logits [B, classes]`.
      variables: any pytree of arrays and numbers; real ones are taken as float32.
      dataset: its training part trains the code, its validation part chooses the
        epoch, its test part gives the results.
      workdir: folder for checkpoints and results.
      devices, mesh: see `placement.make_mesh`.
      console: where progress is shown; standard error if None.
      settings: any other field of `Config`: `k`, `r`, `epochs`, `recipe`, ...

    Returns:
      The coded model; its `results` are the content of `results.json`.

    Raises:
      ValueError: a setting is unknown or out of range, `f_conv` cannot be split, `head`
        does not give logits, or the workdir is that of another CNN or other data.
    """
    blocks = (f_conv,) if callable(f_conv) else tuple(f_conv)
    variables = _arrays(variables)
    base = BaseModel(lambda key, image_shape, classes: variables, blocks, head)
    config = _config(settings)
    _check_head(base, variables, dataset)
    own = Own(dataset, base, variables, fingerprint(base, variables, dataset))
    prepared = prepare(config, workdir, devices=devices, mesh=mesh, own=own)
    results = experiment.run(prepared, console=console)
    params = coded_model.best_params(
        prepared.folder, config, results, "code", prepared.pipeline.init
    )
    return coded_model.CodedModel(
        prepared.pipeline, prepared.variables, params, dataset.image_shape, results
    )


def _arrays(variables: PyTree) -> PyTree:
    """Arrays, real numbers in float32."""

    def array(leaf: Any) -> jax.Array:
        leaf = jnp.asarray(leaf)
        real = jnp.issubdtype(leaf.dtype, jnp.floating)
        return leaf.astype(jnp.float32) if real else leaf

    try:
        return jax.tree.map(array, variables)
    except TypeError as error:
        raise ValueError(
            f"variables: a pytree of arrays and numbers accepted ({first_line(error)})"
        ) from error


def _config(settings: dict[str, Any]) -> Config:
    fixed: dict[str, Any] = {"dataset": OWN, "base_model": OWN}
    names = {field.name for field in dataclasses.fields(Config)} - fixed.keys()
    if unknown := sorted(settings.keys() - names):
        raise ValueError(f"settings: {unknown} given, some of {sorted(names)} accepted")
    return Config(**{"recipe": "systematic", **settings, **fixed})


def _check_head(base: BaseModel, variables: PyTree, dataset: Dataset) -> None:
    """Raises ValueError unless blocks and head make logits of the data's images."""
    if not base.blocks:
        raise ValueError("f_conv: no block given, one or more accepted")
    images = jax.ShapeDtypeStruct((2, *dataset.image_shape), jnp.float32)
    features = _shape("f_conv", base.f_conv, variables, images)
    logits = _shape("head", base.head, variables, features)
    if logits.shape != (2, dataset.classes):
        raise ValueError(
            f"head: gives {list(logits.shape)} for 2 images, "
            f"[2, {dataset.classes}] accepted, the logits of the data set's classes"
        )


def _shape(name: str, f: Block, variables: PyTree, x: Any) -> Any:
    try:
        return jax.eval_shape(f, variables, x)
    except Exception as error:  # whatever a function of the user's raises
        raise ValueError(
            f"{name}: fails for float32 {list(x.shape)} ({first_line(error)})"
        ) from error


def fingerprint(base: BaseModel, variables: PyTree, dataset: Dataset) -> str:
    """16 hexadecimal digits that tell functions, variables and data apart from others.

    Functions by their jaxprs, and by the constants that they have closed over.
    """
    digest = hashlib.sha256(str(jax.tree.structure(variables)).encode())
    x = jax.ShapeDtypeStruct((2, *dataset.image_shape), jnp.float32)
    arrays = []
    for f in (*base.blocks, base.head):
        jaxpr, x = jax.make_jaxpr(f, return_shape=True)(variables, x)
        # Functions print with their address, which is another in every process.
        digest.update(re.sub(r" at 0x[0-9a-f]+", "", str(jaxpr)).encode())
        arrays += jaxpr.consts
    parts = (dataset.train, dataset.validation, dataset.test)
    arrays += [array for part in parts for array in (part.images, part.labels)]
    for leaf in (*jax.tree.leaves(variables), *arrays):
        if isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(
            leaf.dtype, jax.dtypes.prng_key
        ):
            leaf = jax.random.key_data(leaf)
        array = np.ascontiguousarray(leaf)
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()[:16]
