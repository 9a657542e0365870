"""The folder of one run: its flags and files, and no mixing of two runs in it."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

FLAGS = "flags.txt"
RESULTS = "results.json"
METRICS = "metrics.jsonl"
CHECKPOINTS = "checkpoints"
PLACES = ("workdir", "data_dir", "base_dir", "devices", "mesh")
"""Flags that say where, and do not change the run."""
EXTENT = ("baselines", "seeds", "tried")
"""Flags that say how much is tried; what has been trained serves any of them."""


def versions() -> dict[str, str]:
    """Versions of all that a run's numbers depend on."""
    packages = "coded_jax jax jaxlib flax optax orbax-checkpoint numpy".split()
    return {name: metadata.version(name) for name in packages}


def open_workdir(
    path: str | os.PathLike,
    flags: dict[str, str],
    places: dict[str, str] | None = None,
    *,
    defaults: dict[str, str] | None = None,
    write: bool = True,
    name: str = "workdir",
) -> Path:
    """Makes the workdir of a run, or takes up the one that the same run left.

    Args:
      path: the folder; it is made if need be.
      flags: all flags that fix the run, and no other; of `EXTENT` they may differ from
        those that the folder was made with, and take their place.
      places: flags that say where it runs: recorded with them, but free to change.
      defaults: of flags, for those that the version that made the folder did not have.
      write: whether this process, of several, makes the folder and the file.
      name: of the argument that the path was given as, for errors.

    Returns:
      The absolute path.

    Raises:
      ValueError: it cannot be written to, or was made with other flags.
    """
    folder = absolute(path, name)
    if write:
        make_folder(folder, name)
    before = read_flags(folder)
    known = {**(defaults or {}), **(before or {})}
    differing = {
        flag
        for flag in known.keys() | flags.keys()
        if known.get(flag) != flags.get(flag)
    }
    if before is None:
        if (folder / CHECKPOINTS).exists() or (folder / RESULTS).exists():
            raise ValueError(
                f"{name}: {os.fspath(path)!r} holds a run without {FLAGS}; "
                "an empty or new folder is accepted"
            )
    elif fixed := sorted(differing.difference(EXTENT)):
        found = ", ".join(
            f"--{flag}={known.get(flag, 'unset')} there and "
            f"{flags.get(flag, 'unset')} now"
            for flag in fixed
        )
        raise ValueError(
            f"{name}: {os.fspath(path)!r} was made with other flags ({found}); "
            f"give the same flags to resume it, or another --{name}"
        )
    if write and (before is None or differing):
        header = " ".join(f"{name}=={v}" for name, v in versions().items())
        # The absolute path: valid from any current folder.
        every = {"workdir": str(folder), **(places or {}), **flags}
        lines = [f"# {header}", *(f"--{name}={v}" for name, v in every.items())]
        write_atomically(folder / FLAGS, "\n".join(lines) + "\n")
    return folder


def absolute(path: str | os.PathLike, name: str = "workdir") -> Path:
    """The absolute path of a workdir.

    Raises:
      ValueError: it is the empty string, which would be the current folder.
    """
    if not os.fspath(path):
        raise ValueError(f"{name}: '' given, the path of a folder accepted")
    return Path(path).expanduser().absolute()


def make_folder(folder: Path, name: str = "workdir") -> None:
    """Makes a folder if need be.

    Raises:
      ValueError: it cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(
            f"{name}: {str(folder)!r} given, a folder that can be written to accepted "
            f"({error.strerror or error})"
        ) from error


def read_flags(folder: Path) -> dict[str, str] | None:
    """The flags that fixed the run in `folder`; None if there is none."""
    try:
        lines = (folder / FLAGS).read_text().splitlines()
    except FileNotFoundError:
        return None
    pairs = (line[2:].partition("=") for line in lines if line.startswith("--"))
    return {name: value for name, _, value in pairs if name not in PLACES}


def phase_of(name: str, seed: int) -> str:
    """The phase in which a code is trained with one seed; the first is the code's."""
    return f"{name}_{seed}" if seed else name


def checkpoint_folder(folder: Path, phase: str) -> Path:
    """Where the checkpoints of one phase of training lie."""
    return folder / CHECKPOINTS / phase


def copy_checkpoints(source: Path, folder: Path, phase: str) -> None:
    """Copies a phase's checkpoints into a workdir that has none: whole, or not at all.

    Args:
      source: the workdir that has them.
      folder: the workdir that is to have them.
      phase: see `checkpoint_folder`.
    """
    target = checkpoint_folder(folder, phase)
    if target.exists():
        return
    unfinished = target.with_name(phase + ".tmp")
    shutil.rmtree(unfinished, ignore_errors=True)
    shutil.copytree(checkpoint_folder(source, phase), unfinished)
    unfinished.rename(target)


def write_atomically(path: Path, text: str) -> None:
    """Writes `text` so that `path` holds either the old or the new content, whole."""
    unfinished = path.with_name(path.name + ".tmp")
    with open(unfinished, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)


def write_results(folder: Path, results: dict[str, Any]) -> None:
    """Writes `results.json`, whose layout the README's "Files of a run" gives."""
    write_atomically(folder / RESULTS, json.dumps(results, indent=1) + "\n")


def read_results(folder: Path) -> dict[str, Any]:
    """Reads `results.json`.

    Raises:
      ValueError: the folder holds no finished run.
    """
    try:
        return json.loads((folder / RESULTS).read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        raise ValueError(
            f"workdir: {os.fspath(folder)!r} given, a folder with the {RESULTS} of a "
            "finished run accepted"
        ) from None
