"""Checkpoints of a training state on a local disk: atomic, checksummed, synchronous.

A checkpoint is an Orbax checkpoint in `<directory>/<step>`: a flat dictionary from
the path of each leaf to its array, custom metadata with a CRC-32 of every leaf, and
one more file with a CRC-32 of every file. `orbax.checkpoint.v1.load` reads it without
this module.

    save(directory, step, state, seconds=elapsed)
    restored = restore(directory, like=state)  # None: start from the beginning

A save is written under a hidden name and renamed when it is complete, so a process
killed at any moment leaves no half checkpoint under the name of a step. Nothing is
forced out of the page cache (`fsync`): a power cut can damage the newest checkpoint,
which `restore` then notices. One process at a time may save into a directory.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import operator
import os
import re
import shutil
import uuid
import warnings
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from orbax.checkpoint import v1 as ocp

# Everything that is being written or removed has a name that begins so; what has
# one when no save runs was left by a process that died.
_UNFINISHED = ".unfinished-"
_CHECKSUMS = "checksums.json"
_SCALARS = (bool, int, float, complex)


class Restored(NamedTuple):
    """What `restore` found."""

    step: int  # the number that was given to `save`
    state: Any  # the structure, shapes and dtypes of `like`
    seconds: float  # training seconds up to this step, as given to `save`


def save(
    directory: str | os.PathLike[str],
    step: int,
    state: Any,
    *,
    seconds: float = 0.0,
    keep: int = 2,
) -> None:
    """Writes `state` as checkpoint `step`; it is complete on return.

    Nothing refers to the buffers of `state` afterwards, so the caller may donate them
    to the next step. If `step` exists already it is replaced, by two renames once the
    new one is complete: a kill just between them costs this step, never another one.

    Args:
      directory: where the checkpoints are; made if it does not exist.
      step: number of the checkpoint, >= 0.
      state: pytree of JAX arrays (typed keys too), NumPy arrays of numbers or
        booleans, and Python numbers, of any shapes.
      seconds: training seconds spent up to this step, all processes together, >= 0.
      keep: how many checkpoints up to `step` to keep, >= 1; the oldest others are
        removed once the new one is complete. Later steps are left alone: after a
        fall-back from a damaged checkpoint they may be damaged, but also may not.

    Raises:
      ValueError: `step`, `seconds` or `keep` out of range, or a leaf of `state` that
        is no array of native numbers.
      OSError: the disk is full, or any other failure to write. The checkpoints that
        were there remain.
    """
    step, keep = operator.index(step), operator.index(keep)
    if step < 0:
        raise ValueError(f"step must be >= 0, got {step}")
    if keep < 1:
        raise ValueError(f"keep must be >= 1, got {keep}")
    if not (math.isfinite(seconds) and seconds >= 0):
        raise ValueError(f"seconds must be finite and >= 0, got {seconds}")
    arrays = _to_host(state)
    metadata = {
        "step": step,
        "seconds": float(seconds),
        "leaves": [
            [name, x.dtype.name, list(x.shape), _crc32(x)] for name, x in arrays.items()
        ],
    }

    directory = Path(directory).absolute()
    final = directory / str(step)
    staging = _unfinished(final)
    context = ocp.Context()
    # Weights hardly compress: 0.2 s against 0.4 s for 160 MB on a 2-core CPU.
    context.array.saving.use_compression = False
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _sweep(directory)  # before the save, which may need the space
        size = sum(x.nbytes for x in arrays.values())
        free = shutil.disk_usage(directory).free
        if size > free:
            raise OSError(f"the disk is full: {size} bytes to write, {free} free")
        with context, _quiet():
            # Orbax refuses arrays without elements, which their shape and dtype
            # describe fully, and trees without leaves.
            tree = {name: x for name, x in arrays.items() if x.size}
            tree = tree or {"nothing": np.zeros(1)}
            ocp.save(str(staging), tree, custom_metadata=metadata)
        files = [str(f.relative_to(staging)) for f in staging.rglob("*") if f.is_file()]
        (staging / _CHECKSUMS).write_text(json.dumps(_file_crc32s(staging, files)))
        if final.exists():
            final.rename(_unfinished(final))
        staging.rename(final)
    except Exception as error:  # TensorStore reports a full disk as a ValueError
        _sweep(directory)
        raise OSError(
            f"cannot save checkpoint {step} in {directory}: {_reason(error)}"
        ) from error

    for old in [s for s in steps(directory) if s <= step][:-keep]:
        # Renamed first: a checkpoint that is partly removed must not look finished.
        with contextlib.suppress(OSError):
            (directory / str(old)).rename(_unfinished(directory / str(old)))
    _sweep(directory)


def restore(directory: str | os.PathLike[str], like: Any) -> Restored | None:
    """Returns the newest checkpoint that is undamaged and fits `like`.

    Every file and leaf is compared with its checksum. A checkpoint that cannot be
    read, fails a checksum, or has other leaves than `like` is passed over with a
    `RuntimeWarning` that names it and the reason. Nothing on the disk is changed.

    Args:
      directory: as given to `save`; need not exist.
      like: pytree with the structure of the saved state, whose leaves have its shapes
        and dtypes (arrays or `jax.ShapeDtypeStruct`s) or are Python numbers.

    Returns:
      The checkpoint, or None when there is none left. Leaves are bit for bit those
      saved: JAX arrays on the default device that own their memory and may be
      donated, Python numbers where `like` has them, and NumPy arrays where JAX has no
      such dtype (64 bits while `jax_enable_x64` is off).

    Raises:
      ValueError: a leaf of `like` has no shape and dtype.
    """
    directory = Path(directory).absolute()
    paths, treedef = jax.tree.flatten_with_path(like)
    names = [jax.tree_util.keystr(path) for path, _ in paths]
    leaves = [leaf for _, leaf in paths]
    expected = {
        name: _signature(name, leaf) for name, leaf in zip(names, leaves, strict=True)
    }
    for step in reversed(steps(directory)):
        path = directory / str(step)
        try:
            arrays, seconds = _read(path, step, expected)
            state = treedef.unflatten(
                _from_host(arrays[name], leaf)
                for name, leaf in zip(names, leaves, strict=True)
            )
            return Restored(step, state, seconds)
        except Exception as error:  # damage surfaces as nearly any exception
            warnings.warn(
                f"passing over checkpoint {path}: {_reason(error)}",
                RuntimeWarning,
                stacklevel=2,
            )
    return None


def steps(directory: str | os.PathLike[str]) -> list[int]:
    """Returns the steps of the finished checkpoints in `directory`, ascending.

    Finished means completely written; whether it is still undamaged only `restore`
    finds out. The list is empty if `directory` does not exist.
    """
    try:
        with os.scandir(directory) as entries:
            names = [e.name for e in entries if e.name.isdecimal() and e.is_dir()]
    except FileNotFoundError:
        return []
    return sorted(int(name) for name in names if name == str(int(name)))


def _read(
    path: Path, step: int, expected: dict[str, tuple[str, tuple[int, ...]]]
) -> tuple[dict[str, np.ndarray], float]:
    """Returns the verified leaves by name and the seconds of one checkpoint."""
    # First the files: native code (TensorStore) had better not see damaged ones.
    crcs = json.loads((path / _CHECKSUMS).read_bytes())
    for name, crc in _file_crc32s(path, crcs).items():
        if crc != crcs[name]:
            raise ValueError(f"file {name} fails its checksum")
    with _quiet():
        metadata: Any = ocp.metadata(str(path)).custom_metadata
    if metadata["step"] != step:
        raise ValueError(f"it was saved as step {metadata['step']}")
    leaves = metadata["leaves"]
    stored = {name: (dtype, tuple(shape)) for name, dtype, shape, _ in leaves}
    for name in [*expected, *stored]:
        if stored.get(name) != expected.get(name):
            raise ValueError(
                f"leaf {name or '(root)'} is {_show(stored.get(name))} there and "
                f"{_show(expected.get(name))} in `like`"
            )
    with _quiet():
        loaded: Any = ocp.load(str(path))
    arrays = {}
    for name, dtype, shape, crc in leaves:
        x = np.asarray(loaded[name]) if math.prod(shape) else np.zeros(shape, dtype)
        if (x.dtype.name, x.shape, _crc32(x)) != (dtype, tuple(shape), crc):
            raise ValueError(f"leaf {name or '(root)'} fails its checksum")
        arrays[name] = x
    return arrays, metadata["seconds"]


def _to_host(state: Any) -> dict[str, np.ndarray]:
    """Returns the leaves of `state` by path, as C-contiguous NumPy arrays."""
    leaves = {
        jax.tree_util.keystr(path): leaf
        for path, leaf in jax.tree.flatten_with_path(state)[0]
    }
    for name, leaf in leaves.items():
        _signature(name, leaf)
    data = {n: jax.random.key_data(x) if _is_key(x) else x for n, x in leaves.items()}
    return {n: np.asarray(x, order="C") for n, x in jax.device_get(data).items()}


def _from_host(x: np.ndarray, like: Any) -> Any:
    """Returns `x` as the kind of leaf that `like` is."""
    if isinstance(like, _SCALARS):
        return type(like)(x.item())
    # Not `device_put`, which on a CPU may share the memory of `x` and so prevent
    # its donation.
    leaf = jnp.array(x)
    if _is_key(like):
        impl = []  # `key_impl` takes no ShapeDtypeStruct, so ask while tracing
        jax.eval_shape(lambda key: impl.append(jax.random.key_impl(key)), like)
        return jax.random.wrap_key_data(leaf, impl=impl[0])
    return leaf if leaf.dtype == x.dtype else x


def _signature(name: str, leaf: Any) -> tuple[str, tuple[int, ...]]:
    """Returns the name of the dtype and the shape under which `leaf` is stored."""
    if isinstance(leaf, _SCALARS):
        leaf = np.asarray(leaf)
    if _is_key(leaf):
        leaf = jax.eval_shape(jax.random.key_data, leaf)
    dtype = getattr(leaf, "dtype", None)
    if not (
        isinstance(dtype, np.dtype)
        and dtype.isnative
        and (dtype.kind == "b" or jnp.issubdtype(dtype, jnp.number))
    ):
        raise ValueError(
            f"leaf {name or '(root)'} must be an array of native numbers or booleans "
            f"or a Python number, got {dtype or type(leaf).__name__}"
        )
    return dtype.name, tuple(leaf.shape)


def _is_key(leaf: Any) -> bool:
    dtype = getattr(leaf, "dtype", None)
    return dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)


def _crc32(x: np.ndarray) -> int:
    return zlib.crc32(x.reshape(-1).view(np.uint8).data)


def _file_crc32s(path: Path, names: Iterable[str]) -> dict[str, int]:
    """Returns the CRC-32 of the files `names` below `path`."""
    crcs = dict.fromkeys(names, 0)
    for name in crcs:
        with open(path / name, "rb") as file:
            while block := file.read(1 << 22):
                crcs[name] = zlib.crc32(block, crcs[name])
    return crcs


def _show(signature: tuple[str, tuple[int, ...]] | None) -> str:
    return f"{signature[0]}{list(signature[1])}" if signature else "missing"


def _unfinished(path: Path) -> Path:
    return path.with_name(f"{_UNFINISHED}{path.name}-{uuid.uuid4().hex}")


def _sweep(directory: Path) -> None:
    """Removes what interrupted saves and removals have left."""
    for path in directory.glob(f"{_UNFINISHED}*"):
        shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Drops the log records of Orbax, on this and every other thread.

    It logs the tracebacks of an error, hundreds of lines, before it raises the error,
    and version 0.12.0 logs a groundless warning with every load.
    """
    not_orbax = lambda record: "orbax" not in record.pathname
    logger = logging.getLogger("absl")
    logger.addFilter(not_orbax)
    try:
        yield
    finally:
        logger.removeFilter(not_orbax)


def _reason(error: Exception) -> str:
    """Returns one line that says what `error`, or what caused it, is."""
    while isinstance(error.__cause__, Exception):
        error = error.__cause__
    text = " ".join(f"{type(error).__name__}: {error}".split())
    if code := re.search(r"os_error_code='(\d+)'", text):  # a wordy TensorStore error
        return os.strerror(int(code[1]))
    return text if len(text) <= 300 else f"{text[:300]} ..."
