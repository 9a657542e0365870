"""Gives a CNN of the user's own, trained already, a code; see `protect`."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
from rich.console import Console

from coded_jax.checks import require
from coded_jax.data.checks import require_dataset
from coded_jax.devices import processes
from coded_jax.runs import experiment, fingerprints
from coded_jax.runs.coded_model import CodedModel
from coded_jax.runs.config import Config
from coded_jax.runs.own_model import own_base, own_config
from coded_jax.runs.prepare import Own, prepare
from coded_jax.runs.variables import save_variables
from coded_jax.runs.workdir import Places
from coded_jax.staging.planning import plan_stages
from coded_jax.types import Block, Dataset, PyTree

CHEAP = {"parity_pieces": "smaller", "encoder": "linear", "decoder": "sharpen"}
"""Settings of codes for deep networks, on whose features dense ones would be huge."""


def protect(
    *,
    blocks: Block | Sequence[Block] | None = None,
    head: Callable[[PyTree, jax.Array], jax.Array] | None = None,
    model: Callable[[PyTree, jax.Array], jax.Array] | None = None,
    variables: PyTree,
    dataset: Dataset,
    workdir: str | os.PathLike | None = None,
    devices: int | None = None,
    mesh: tuple[int, int] | None = None,
    console: Console | None = None,
    **settings: Any,
) -> CodedModel:
    """Gives a trained CNN a code: splits it, trains the code, tries every pattern.

    Args:
      blocks: the convolutional part, `(variables, images [B, H, W, C]) -> features
        [B, M*, M'*, D]`, of anything that `make_plan` accepts; or several such
        functions, each of which takes what the one before it returns, for `stages`.
        Images arrive as `(images / 255 - mean) / std` with the mean and deviation of
        the data set, or as they are if they are float32 and it has none.
      head: `(variables, features [B, M*, M'*, D]) -> logits [B, classes]`; or
        `[B, H', W', classes]`, one answer for each position, of labels `[N, H', W']`.
      model: the whole CNN, `(variables, images [B, H, W, C]) -> logits`, in the place
        of blocks and head; `plan_stages` finds its stages. Codes are then cheap ones by
        default: smaller images for parity, linear encoders, decoders that sharpen.
      variables: any pytree of arrays and numbers; real ones are taken as float32.
      dataset: its training part trains the code, its validation part chooses the
        epoch, its test part gives the results.
      workdir: folder for checkpoints and results, as of `experiments/run.py`: killed,
        the same call goes on from there; finished, it only loads. If None, nothing is
        left on the disk.
      devices, mesh: see `make_mesh`.
      console: where progress is shown; standard error if None.
      settings: fields of `Config`: `k`, `r`, `epochs`, `recipe`, ...; but not those of
        `BaseConfig`, since the CNN is trained already.

    Returns:
      The coded model; its `results` are the content of `results.json`.

    Raises:
      ValueError: a setting is unknown or out of range, the data set is not sound, the
        blocks cannot be split, `head` does not give logits, or the workdir is that of
        another CNN or other data.
    """
    dataset = require_dataset(dataset)
    if model is not None:
        given = {"blocks": blocks, "head": head}
        cuts = ("stages", "stage_grids", "grid", "split")
        given |= {name: settings.get(name) for name in cuts}
        for name, value in given.items():
            require(name, value, value is None, "none with a model")
        settings = {**CHEAP, **settings}
        config = own_config(settings, Config)
        sizes = (dataset.image_shape, config.k, config.r)
        plan = plan_stages(model, variables, *sizes)
        blocks, head, variables = plan.base.blocks, plan.base.head, plan.variables
        settings |= plan.settings
    accepted = "the CNN as a function"
    given = blocks is not None and head is not None
    require("model", model, model is not None or given, accepted)
    sizes = (dataset.image_shape, dataset.classes, dataset.positions)
    last = "head" if model is None else "model"
    base, variables = own_base(blocks, head, variables, *sizes, last=last)
    config = own_config(settings, Config)
    marks = fingerprints.of_network(base, variables, dataset.image_shape)
    marks["data"] = fingerprints.of_data(dataset)
    own = Own(dataset, base, variables, marks)
    prepared = prepare(config, Places(workdir, devices=devices, mesh=mesh), own=own)
    if prepared.folder and processes.is_lead():
        save_variables(prepared.folder, variables)
    return experiment.run(prepared, console=console)
