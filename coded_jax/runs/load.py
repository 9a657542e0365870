"""Loads a finished run as a coded model."""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax

from coded_jax import codes
from coded_jax.checks import require
from coded_jax.devices import placement
from coded_jax.devices.meshes import make_mesh
from coded_jax.inference.pipeline import Examples
from coded_jax.runs import kept_base, provenance, workdir
from coded_jax.runs.build import build_pipeline, own_base
from coded_jax.runs.coded_model import CodedModel
from coded_jax.runs.config import OWN, Config
from coded_jax.runs.phases import BASE, CODE, regime_of
from coded_jax.runs.workdir import absolute
from coded_jax.training import checkpoints
from coded_jax.training.optimizers import Regime
from coded_jax.training.steps import initial_state
from coded_jax.types import Block, PyTree


def load(
    path: str | os.PathLike,
    devices: int | None = None,
    mesh: tuple[int, int] | None = None,
    *,
    blocks: Block | Sequence[Block] | None = None,
    head: Callable[[PyTree, jax.Array], jax.Array] | None = None,
    variables: PyTree | None = None,
    code: codes.AnyCode | None = None,
) -> CodedModel:
    """Loads the best parameters of a finished run.

    Functions are not stored. A run of `protect` is given them again, and compares them
    with its own.

    Args:
      path: its workdir.
      devices, mesh: where it is computed; see `make_mesh`. By default the
        pieces are spread over all devices.
      blocks, head: of a run of `protect`, the network as it was given there; that of a
        `model` is in `plan_stages(...).base`.
      variables: of the network, where the workdir does not hold them: they are stored
        if they are nested dicts of arrays.
      code: the function that builds the code, of a run that was given one.

    Raises:
      ValueError: the folder holds no finished run, its checkpoints are damaged, there
        are no such devices, or network, variables or code are missing, or others than
        those of the run.
    """
    folder = absolute(path)
    results = workdir.read_results(folder)
    fields = dict(results["config"])
    own = not codes.is_code(name := fields["code"])
    accepted = f"the function {name!r} of the run" if own else f"none, as of {name},"
    require("code", code, callable(code) if own else code is None, accepted)
    fields["code"] = code or name
    fields["baselines"] = [*filter(codes.is_code, fields["baselines"])]
    config = Config.from_json(fields)
    shape, classes = tuple(results["image_shape"]), results["classes"]
    mean, std = (value and tuple(value) for value in results["normalisation"].values())
    base = frozen = None
    if config.base_model == OWN:
        if blocks is None or head is None:
            raise ValueError("blocks, head: not given, those of the run accepted")
        variables = kept_base.read_variables(folder) if variables is None else variables
        accepted = "those of the run, which its workdir could not store,"
        require("variables", variables, variables is not None, accepted)
        positions = tuple(results.get("positions", ()))
        base, frozen = own_base(
            blocks, head, variables, shape, classes, positions=positions
        )
        _require_same(results, provenance.of_network(base, frozen, shape), folder)
    else:
        given = {"blocks": blocks, "head": head, "variables": variables}
        for name, value in given.items():
            accepted = f"none for a run of {config.base_model}"
            require(name, type(value).__name__, value is None, accepted)
    examples = Examples(shape, mean, std, values=results.get("values", False))
    mesh_of_pieces = make_mesh(config.n, devices, mesh)
    build = build_pipeline if base else _build_once  # keyed by its arguments
    pipeline = build(config, examples, classes, mesh_of_pieces, base)
    if frozen is None and kept_base.is_kept(folder):
        frozen = kept_base.read(folder, "workdir").variables
    elif frozen is None:
        init = lambda key: pipeline.base.init(key, shape, classes)
        frozen = best_params(folder, results, BASE, regime_of(config, BASE), init)
    if callable(config.code):
        mark = provenance.of_codes(pipeline, frozen)
        _require_same(results, {"code": mark}, folder)
    params = best_params(folder, results, CODE, regime_of(config, CODE), pipeline.init)
    placed, params = placement.put_replicated(pipeline.mesh, (frozen, params))
    return CodedModel(pipeline, placed, params, results)


# A run that is loaded again meets the programs that were compiled for it before.
_build_once = functools.lru_cache(maxsize=8)(build_pipeline)


def _require_same(
    results: dict[str, Any], current: dict[str, str], folder: Path
) -> None:
    """Raises ValueError if a fingerprint is not that of the run."""
    version, recorded = results["versions"]["jax"], results["fingerprints"]
    for name, value in current.items():
        if value == recorded.get(name):
            continue
        if name == "variables" or version == jax.__version__:
            raise ValueError(
                f"{name}: others given (fingerprint {value}) than those of the run in "
                f"{str(folder)!r} ({recorded.get(name)}), the same accepted"
            )
        warnings.warn(
            f"{name}: not compared with those of the run, whose JAX was {version}",
            RuntimeWarning,
            stacklevel=3,
        )


def best_params(
    folder: Path,
    results: dict[str, Any],
    phase: str,
    regime: Regime,
    init: Callable[[jax.Array], PyTree],
) -> PyTree:
    """Restores the best parameters of one phase of a finished run.

    Raises:
      ValueError: the checkpoint is damaged or missing.
    """
    if not jax.tree.leaves(jax.eval_shape(init, jax.random.key(0))):
        return init(jax.random.key(0))  # nothing has been trained
    optimizer = regime.optimizer(examples=1)
    like = jax.eval_shape(lambda: initial_state(init, optimizer, jax.random.key(0)))
    restored = checkpoints.restore(workdir.checkpoint_folder(folder, phase), like)
    if restored is None or restored.step != results["steps"][phase]:
        raise ValueError(
            f"workdir: the last checkpoint of {phase!r} in {os.fspath(folder)!r} is "
            "damaged or missing; run the experiment again to restore it"
        )
    return restored.state[1].params
