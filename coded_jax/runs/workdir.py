"""The folder of one run, its flags and its files; it never holds two runs."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import tempfile
import textwrap
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from coded_jax.checks import require
from coded_jax.runs.config import RETIRED, Config

FLAGS = "flags.txt"
RESULTS = "results.json"
METRICS = "metrics.jsonl"
CHECKPOINTS = "checkpoints"
MEASURED = "measured"
MOMENTS = "moments"
MADE = (CHECKPOINTS, MEASURED, MOMENTS, RESULTS)
"""Shows, each by itself, that a run was begun in a folder."""
EXTENT = ("baselines", "seeds", "tried")
"""Flags of the amount of training and evaluation; checkpoints serve any of them."""
BASELINE_MARK = "fingerprint_of_baseline_"
"""Begins the flags that tell the functions of baselines apart. One may be added or left
out, but is never another function of the same name: its checkpoints are kept."""


def versions() -> dict[str, str]:
    """Returns the versions of all packages that a run's numbers depend on."""
    packages = "coded_jax jax jaxlib flax optax orbax-checkpoint numpy".split()
    of_packages = {name: metadata.version(name) for name in packages}
    return {**of_packages, "python": platform.python_version()}


class Places(NamedTuple):
    """Folders and devices of a run, which may be resumed with others.

    Attributes:
      workdir: folder of the run; nothing is kept if None.
      data_dir: TFDS folder; see `data.load`.
      devices: how many are used; all if None.
      mesh: devices along piece x data; see `make_mesh`.
      base_dir: where the base model is trained, or taken from if it has been: runs with
        the same base model share it. The workdir if None.
    """

    workdir: str | os.PathLike | None
    data_dir: str | None = None
    devices: int | None = None
    mesh: tuple[int, int] | None = None
    base_dir: str | os.PathLike | None = None

    @property
    def folders(self) -> tuple[Path | None, Path | None]:
        """Returns the workdir and the folder of the base model, absolute.

        Raises:
          ValueError: one of them is no path, or they are given as the same.
        """
        folder = None if self.workdir is None else absolute(self.workdir)
        if self.base_dir is None:
            return folder, folder
        base_folder = absolute(self.base_dir, "base_dir")
        accepted = "another folder than the workdir, or none,"
        require("base_dir", str(self.base_dir), base_folder != folder, accepted)
        return folder, base_folder

    def to_flags(self) -> dict[str, str]:
        """Returns `{flag name: text}` of what is not None, without the workdir."""
        flags = {
            "data_dir": self.data_dir and absolute(self.data_dir, "data_dir"),
            "base_dir": self.base_dir and absolute(self.base_dir, "base_dir"),
            "devices": self.devices,
            "mesh": self.mesh and f"{self.mesh[0]}x{self.mesh[1]}",
        }
        return {name: str(x) for name, x in flags.items() if x is not None}


def absolute(path: str | os.PathLike | None, name: str = "workdir") -> Path:
    """Returns the absolute path of a folder; `name` is its argument, for errors.

    Raises:
      ValueError: it is None, or the empty string, which would be the current folder.
    """
    fits = isinstance(path, str | os.PathLike) and bool(os.fspath(path))
    require(name, path, fits, "the path of a folder")
    return Path(path or "").expanduser().absolute()


def open_workdir(
    path: str | os.PathLike,
    flags: dict[str, str],
    places: dict[str, str] | None = None,
    *,
    write: bool = True,
    name: str = "workdir",
) -> Path:
    """Makes the workdir of a run, or takes up the one that the same run left.

    Args:
      path: the folder; it is made if need be.
      flags: `{flag name: text}`, all that fix the run and no other; those of `EXTENT`
        may differ from what the folder was made with, and take its place.
      places: flags of where it runs; recorded, but free to change.
      write: whether this process, of several, makes the folder and the file.
      name: of the argument that the path was given as, for errors.

    Returns:
      The absolute path.

    Raises:
      ValueError: it cannot be written to, or was made with other settings.
    """
    folder = absolute(path, name)
    if write:
        make_folder(folder, name)
    before = read_flags(folder)
    if before is None:
        begun = any((folder / made).exists() for made in MADE)
        accepted = f"an empty or new folder, since this one has a run without {FLAGS},"
        require(name, str(path), not begun, accepted)
    else:
        marks = {f: text for f, text in before.items() if f.startswith(BASELINE_MARK)}
        flags = marks | flags
        # A setting that is younger than the folder had today's default then.
        defaults = {f: x for f, x in Config().to_flags().items() if f in flags}
        before = defaults | before
        free = {f for f in flags if f.startswith(BASELINE_MARK) and f not in before}
        pairs = [
            f"{flag}={before.get(flag, 'unset')} there and "
            f"{flags.get(flag, 'unset')} now"
            for flag in sorted((before.keys() | flags.keys()) - free - {*EXTENT})
            if before.get(flag) != flags.get(flag)
        ]
        if pairs:
            differences = textwrap.shorten(", ".join(pairs), 300, placeholder=" ...")
            raise ValueError(
                f"{name}: {str(path)!r} was made with other settings ({differences}); "
                f"the same ones resume it, or give another {name}"
            )
    if write and flags != before:
        packages = " ".join(f"{x}=={y}" for x, y in versions().items())
        # The absolute path: valid from any current folder.
        recorded = {"workdir": str(folder), **(places or {}), **flags}
        lines = [f"# {packages}", *(f"--{f}={text}" for f, text in recorded.items())]
        write_atomically(folder / FLAGS, "\n".join(lines) + "\n")
    return folder


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
    """Returns the flags that fixed the run in `folder`; None if there is none.

    Those of `RETIRED` settings are left out where they have the value of today's code.
    """
    try:
        lines = (folder / FLAGS).read_text().splitlines()
    except FileNotFoundError:
        return None
    pairs = (line[2:].split("=", 1) for line in lines if line.startswith("--"))
    retired = {(name, str(value)) for name, value in RETIRED.items()}
    return {
        name: value
        for name, value in pairs
        if name not in Places._fields and (name, value) not in retired
    }


def phase_of(name: str, seed: int) -> str:
    """Returns the phase of a code's training with one seed, named as the code for 0."""
    return f"{name}_{seed}" if seed else name


def checkpoint_folder(folder: Path, phase: str) -> Path:
    """Returns the folder of the checkpoints of one phase."""
    return folder / CHECKPOINTS / phase


def copy_checkpoints(source: Path, folder: Path, phase: str) -> None:
    """Copies a phase's checkpoints, whole, into a workdir that has none."""
    target = checkpoint_folder(folder, phase)
    if target.exists():
        return
    unfinished = target.with_name(phase + ".tmp")
    shutil.rmtree(unfinished, ignore_errors=True)
    shutil.copytree(checkpoint_folder(source, phase), unfinished)
    unfinished.rename(target)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes so that `path` holds either the old or the new content, whole."""
    data = content.encode() if isinstance(content, str) else content
    unfinished = path.with_name(path.name + ".tmp")
    with open(unfinished, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Returns the lines of `metrics.jsonl`, but for those that a kill has cut short;
    none without training."""
    lines = []
    if (folder / METRICS).exists():
        for line in (folder / METRICS).read_text(errors="replace").splitlines():
            with contextlib.suppress(ValueError):
                lines.append(json.loads(line))
    return lines


def read_results(folder: Path) -> dict[str, Any]:
    """Reads `results.json`.

    Raises:
      ValueError: the folder holds no finished run.
    """
    try:
        results = json.loads((folder / RESULTS).read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        results = {}
    finished = isinstance(results, dict) and "config" in results
    accepted = f"a folder with the {RESULTS} of a finished run"
    require("workdir", os.fspath(folder), finished, accepted)
    return results
