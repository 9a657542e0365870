"""Provenance of a result: version, commit, date, flags, hardware; and fingerprints of
what a workdir cannot hold: functions, variables, data of a user."""

from __future__ import annotations

import collections
import datetime
import hashlib
import os
import platform
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from coded_jax.inference.pipeline import Pipeline
from coded_jax.types import BaseModel, CodeFlops, Dataset, PyTree

DIRTY = "+dirty"
ROOT = Path(__file__).parents[2]
SOURCES = ("coded_jax", "experiments", "pyproject.toml", ":!experiments/results")


def collect(
    command: str = "",
    flags: Mapping[str, str] | None = None,
    devices: Sequence[Any] = (),
) -> dict[str, Any]:
    """Returns the provenance of a result that this process is about to store, as JSON.

    Touches no device: those that computed are given.

    Args:
      command: the command line; empty for a call from Python.
      flags: `{name: text}` of the settings.
      devices: of JAX, that computed the result.

    Returns:
      `version` of this package; `commit`, see there; `date`, UTC, ISO 8601; `command`;
      `flags`; and `hardware`: the `processor`, its `cores` that the process may use,
      and `devices`, how many of each kind.
    """
    return {
        "version": metadata.version("coded_jax"),
        "commit": commit(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": command,
        "flags": dict(flags or {}),
        "hardware": {
            "processor": processor(),
            "cores": usable_cores(),
            "devices": dict(collections.Counter(x.device_kind for x in devices)),
        },
    }


def commit(root: Path = ROOT) -> str | None:
    """Returns the commit of a source tree, with `+dirty` if its code was changed; None
    if it is no working tree of Git, or Git is missing or refuses to read it."""
    if not (root / ".git").exists():
        return None
    # In a hook Git's own variables would name another repository.
    clean = {name: v for name, v in os.environ.items() if not name.startswith("GIT_")}

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments],
            env=clean,
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
        return done.stdout.strip()

    try:
        head = git("rev-parse", "HEAD")
        changes = git("status", "--porcelain", "--", *SOURCES)
    except (OSError, subprocess.SubprocessError):
        return None
    return head + (DIRTY if changes else "")


def code_version(root: Path = ROOT) -> str | None:
    """Returns version and commit as a key for what the code has measured; None where it
    has changed since, or Git cannot say whether it has: nothing names such code."""
    head = commit(root)
    unnamed = (root / ".git").exists() if head is None else head.endswith(DIRTY)
    return None if unnamed else f"{metadata.version('coded_jax')} {head}"


def processor() -> str:
    """Returns the name of the CPU, or of its architecture where it has no other."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if "model name" in line]
    return names[0] if names else platform.processor() or platform.machine()


def usable_cores() -> int:
    """Returns the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def of_network(
    base: BaseModel, variables: PyTree, image_shape: tuple[int, int, int]
) -> dict[str, str]:
    """Returns 16 hexadecimal digits each for the `functions` and the `variables`.

    Functions are compared by their jaxprs, which differ between versions of JAX, and by
    the constants that they close over, see `_constants`.
    """
    x = jax.ShapeDtypeStruct((2, *image_shape), jnp.float32)
    texts, constants = [], []
    for function in (*base.blocks, base.head):
        jaxpr, x = jax.make_jaxpr(function, return_shape=True)(variables, x)
        texts.append(str(jaxpr))
        constants += _constants(jaxpr)
    structure = str(jax.tree.structure(variables))
    return {
        "functions": digest(texts, constants),
        "variables": digest([structure], jax.tree.leaves(variables)),
    }


def of_codes(pipeline: Pipeline, variables: PyTree) -> str:
    """Returns 16 hexadecimal digits for a pipeline's codes; of the base model's
    variables only shapes matter."""
    texts, constants = [], []
    key = jax.ShapeDtypeStruct((), jax.random.key(0).dtype)
    for stage in pipeline.stages:
        plan, code = stage.plan, stage.code
        params = jax.eval_shape(code.init, key)
        given = pipeline.k if plan.exact else pipeline.n
        pieces = jax.ShapeDtypeStruct((given, 2, *plan.piece_shape), jnp.float32)
        shares = jax.ShapeDtypeStruct((pipeline.n, 2, *stage.result_shape), jnp.float32)
        mean = jax.ShapeDtypeStruct((pipeline.k, *plan.share_shape), jnp.float32)
        available = jax.ShapeDtypeStruct((pipeline.n, 2), jnp.bool_)
        for function, *inputs in (
            (code.init, key),
            (code.encode, params, pieces),
            (code.decode, params, shares, available, *(pieces,) * code.traits.guided),
            (code.traits.parity_worker, params, variables),
            (code.traits.constants, mean),
        ):
            if function is None:
                continue
            jaxpr = jax.make_jaxpr(function)(*inputs)
            texts.append(str(jaxpr))
            constants += _constants(jaxpr)
        # Functions are told by their jaxprs above; their names hold addresses.
        traits = code.traits._replace(
            constants=None, parity_worker=None, flops=CodeFlops()
        )
        texts += [str((code.systematic, code.quorum, traits))]
    return digest(texts, constants)


def _constants(jaxpr: Any) -> list[Any]:
    """Returns the arrays that a jaxpr closes over: its own, then those of the jaxprs
    in it, as of a function under `jax.jit`, which keeps its constants to itself."""
    arrays = [*getattr(jaxpr, "consts", ())]
    for eqn in jaxpr.eqns:
        for value in jax.tree.leaves(eqn.params):
            if hasattr(value, "eqns"):
                arrays += _constants(value)
    return arrays


def of_data(dataset: Dataset) -> str:
    """Returns 16 hexadecimal digits for all images and labels of a data set."""
    parts = (dataset.train, dataset.validation, dataset.test)
    arrays = [array for part in parts for array in (part.images, part.labels)]
    return digest([str((dataset.classes, dataset.mean, dataset.std))], arrays)


def digest(texts: Iterable[str], arrays: Iterable[Any]) -> str:
    """Returns the first 16 hexadecimal digits of a SHA-256 of texts and arrays."""
    sha = hashlib.sha256()
    for text in texts:
        # Functions print with their address, which is another in every process.
        sha.update(re.sub(r" at 0x[0-9a-f]+", "", text).encode())
    for leaf in arrays:
        if isinstance(leaf, jax.Array) and jnp.issubdtype(
            leaf.dtype, jax.dtypes.prng_key
        ):
            leaf = jax.random.key_data(leaf)
        array = np.ascontiguousarray(leaf)
        sha.update(f"{array.dtype}{array.shape}".encode())
        sha.update(array.tobytes())
    return sha.hexdigest()[:16]
