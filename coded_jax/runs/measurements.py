"""What a run has measured of one code, seed and kind of losses, kept in its workdir.

An evaluation that is stopped goes on from there, and one with more seeds or baselines
measures what is new.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from coded_jax.codes.erasures import Pattern
from coded_jax.cpu_kernels import lowering
from coded_jax.evaluation.pattern_accuracy import PatternAccuracy
from coded_jax.runs import fingerprints, sources, workdir
from coded_jax.types import PyTree


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


def digest_of(
    patterns: Sequence[Pattern], settings: Sequence[str], variables: PyTree
) -> str:
    """Returns 16 hexadecimal digits for all that measurements depend on.

    Measurements of other code, versions or kernels are never taken up.

    Args:
      patterns: that are tried.
      settings: of the evaluation.
      variables: of base model and code.
    """
    code = sources.together(sources.of_process())
    texts = [str([*map(tuple, patterns)]), *settings, code, str(workdir.versions())]
    if jax.default_backend() == "cpu":
        texts.append(lowering.convolutions())
    return fingerprints.digest(texts, jax.tree.leaves(variables))


def read(path: Path, digest: str) -> Measured | None:
    """Reads what `write` has kept; None if there is nothing of this digest."""
    try:
        kept = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return None
    if kept.pop("digest") != digest:
        return None
    measured = Measured(**kept)
    patterns = [PatternAccuracy(tuple(p[0]), *p[1:]) for p in measured.patterns]
    return measured._replace(patterns=patterns)


def write(path: Path, digest: str, measured: Measured) -> None:
    """Keeps measurements, whole or not at all."""
    path.parent.mkdir(exist_ok=True)
    content = {"digest": digest, **measured._asdict()}
    workdir.write_atomically(path, json.dumps(content) + "\n")
