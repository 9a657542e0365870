"""Provenance of a stored result: version, commit, date, flags, hardware."""

from __future__ import annotations

import collections
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
