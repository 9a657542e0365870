"""Provenance of a stored result: version, commit, date, flags, hardware."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

DIRTY = "+dirty"
ROOT = Path(__file__).parents[2]
SOURCES = ("coded_jax", "experiments", "pyproject.toml", ":!experiments/results")


@dataclasses.dataclass(frozen=True)
class Hardware:
    """The machine that made a result.

    Attributes:
      processor: name of the CPU.
      cores: of the CPU that the process may use.
      devices: `{kind: how many}` of those that computed.
    """

    processor: str
    cores: int
    devices: dict[str, int]


@dataclasses.dataclass(frozen=True)
class Provenance:
    """The origin of a stored result.

    Attributes:
      version: of this package.
      commit: hexadecimal digits of the source tree's commit, with `+dirty` if its code
        was changed since; None where the package is not a source tree of Git.
      date: of the record, UTC, ISO 8601 to the second.
      command: the command line; empty for a call from Python.
      flags: `{name: text}` of the settings.
      hardware: the machine.
    """

    version: str
    commit: str | None
    date: str
    command: str
    flags: dict[str, str]
    hardware: Hardware

    def to_json(self) -> dict[str, Any]:
        """Returns the fields as JSON has them."""
        return dataclasses.asdict(self)


def collect(
    command: str = "",
    flags: Mapping[str, str] | None = None,
    devices: Sequence[Any] = (),
) -> Provenance:
    """Returns the provenance of a result that this process is about to store.

    Touches no device: those that computed are given.

    Args:
      command: the command line.
      flags: `{name: text}` of the settings.
      devices: of JAX, that computed the result.
    """
    return Provenance(
        version=metadata.version("coded_jax"),
        commit=commit(),
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        command=command,
        flags=dict(flags or {}),
        hardware=Hardware(
            processor(),
            usable_cores(),
            dict(collections.Counter(device.device_kind for device in devices)),
        ),
    )


def commit(root: Path = ROOT) -> str | None:
    """Returns the commit of a source tree, with `+dirty` if its code was changed.

    Args:
      root: the folder that has `.git` and the package.

    Returns:
      None if it is no working tree of Git, or Git is missing or refuses to read it.
    """
    if not (root / ".git").exists():
        return None
    try:
        head = _git(root, "rev-parse", "HEAD")
        changes = _git(root, "status", "--porcelain", "--", *SOURCES)
    except (OSError, subprocess.SubprocessError):
        return None
    return head + (DIRTY if changes else "")


def code_version(root: Path = ROOT) -> str | None:
    """Returns the version of the code as a key for what it has measured.

    Args:
      root: the folder that has `.git` and the package.

    Returns:
      Version and commit; None where the code has changed since that commit, or where
      Git cannot say whether it has, since nothing names such code.
    """
    head = commit(root)
    if head is None and (root / ".git").exists():
        return None
    if head is not None and head.endswith(DIRTY):
        return None
    return f"{metadata.version('coded_jax')} {head}"


def _git(root: Path, *arguments: str) -> str:
    # In a hook Git's own variables would name another repository.
    clean = {name: v for name, v in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "-C", str(root), *arguments]
    done = subprocess.run(
        command, env=clean, capture_output=True, text=True, check=True, timeout=30
    )
    return done.stdout.strip()


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
