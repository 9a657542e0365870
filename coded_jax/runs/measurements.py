"""Keeps in a workdir what a run measures of one code, seed and kind of losses.

An evaluation that is stopped goes on from there, and one with more seeds or baselines
measures what is new.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import jax

from coded_jax.cpu_kernels import lowering
from coded_jax.devices import processes
from coded_jax.evaluation.pattern_accuracy import PatternAccuracy
from coded_jax.runs import provenance, workdir


class Measured(NamedTuple):
    """The measurements of a code of one seed.

    Attributes:
      patterns: the accuracy under each pattern.
      confidence: as of `confidence.study`; empty where it is not studied.
      seconds: that they took.
    """

    patterns: list[PatternAccuracy]
    confidence: dict[str, Any]
    seconds: float


def circumstances() -> list[str] | None:
    """Returns texts of all that measurements depend on beside settings, variables and
    images: versions, precision, device and kernels; None where the code has changes
    that no commit has, so that nothing can be kept."""
    version, backend = provenance.code_version(), jax.default_backend()
    if version is None:
        return None
    return [
        version,
        str(workdir.versions()),
        str(jax.config.jax_default_matmul_precision),
        str(jax.config.jax_enable_x64),
        f"{backend} {jax.devices()[0].device_kind}",
        lowering.convolutions() if backend == "cpu" else "",
    ]


def read(path: Path, digest: str) -> Measured | None:
    """Reads what `write` has kept under this digest; None if it has not, or the file is
    damaged."""
    try:
        kept = json.loads(path.read_text())
        if kept.pop("digest") != digest:
            return None
        measured = Measured(**kept)
        patterns = [PatternAccuracy(tuple(p[0]), *p[1:]) for p in measured.patterns]
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return measured._replace(patterns=patterns)


def write(path: Path, digest: str, measured: Measured) -> None:
    """Keeps measurements, whole or not at all; of several processes, the lead does.

    Raises:
      OSError: in every process, if it cannot be written.
    """
    text = json.dumps({"digest": digest, **measured._asdict()}) + "\n"

    def write_file() -> None:
        try:
            path.parent.mkdir(exist_ok=True)
            workdir.write_atomically(path, text)
        except OSError as error:
            reason = error.strerror or error
            raise OSError(f"workdir: cannot write {path} ({reason})") from error

    processes.by_lead(write_file)
