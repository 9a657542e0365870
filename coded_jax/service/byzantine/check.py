"""The record of a calibrated check of results, and the file that keeps it."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from coded_jax.checks import require
from coded_jax.codes.erasures import Pattern, patterns
from coded_jax.codes.quorum import ALL_DATA
from coded_jax.inference.pipeline import Pipeline
from coded_jax.runs import provenance
from coded_jax.runs.coded_model import CodedModel

CHECK = "check.npz"
"""The file in the workdir of a run."""

MOST_LOST = 2
"""Losses with which results are still checked: of more there are too many sets."""


class StageCheck(NamedTuple):
    """Statistics of the results of a coded stage where all of them are right.

    A result is described by c coordinates, see `agreement.coordinates`. P sets of
    results are checked, those of `checked_patterns`. Of a result `i` in a set its
    coordinates are predicted from v, the `n c` coordinates of all results in the set
    (those of `i` have no weight), the c of the share that the code makes of the others,
    and 1.

    Attributes:
      means: float32 `[n, d]`, of roots of the d values of a share.
      bases: float32 `[n, d, q]`, the directions whose coordinates are looked at.
      hidden: float32 `[p, H]`, weights of H random features of v (Rahimi and Recht
        2008), of which p is `(n + 1) c + 1`.
      weights: float32 `[P, n, p + H, c]`, from v and its features to the prediction.
      whiteners: float32 `[P, n, c, c]`; times what differs from the prediction, a
        column of uncorrelated numbers of variance 1.
      alone: float32 `[n, c, c]`, likewise times the coordinates themselves.
      centers, scales: float32 `[P, n, T]`, of T statistics, see `agreement`.
      exact: bool `[P, n]`, whether the code predicts a result to rounding; then only
        `roundings` counts.
      roundings: float32 `[P, n]`, the largest difference that is rounding.
      thresholds: float32 `[P]`, of the largest of all statistics.
      places: int32 `[2^n]`, from `sum(arrived * 2^i)` to the place of a set among the
        P, -1 for those that are not checked.
      magnitudes: uint32 `[2]`, bits of the least magnitude but 0, and of the largest,
        that a right value has.
      negative: bool `[]`, whether right values may be below zero.
    """

    means: jax.Array
    bases: jax.Array
    hidden: jax.Array
    weights: jax.Array
    whiteners: jax.Array
    alone: jax.Array
    centers: jax.Array
    scales: jax.Array
    exact: jax.Array
    roundings: jax.Array
    thresholds: jax.Array
    places: jax.Array
    magnitudes: jax.Array
    negative: jax.Array


@dataclasses.dataclass(frozen=True)
class Check:
    """A calibrated check.

    Attributes:
      stages: for each coded stage.
      record: what `check.npz` says of itself, as JSON: `model`, a fingerprint; `rate`
        and `confidence`, the part of images with a false alarm at most, and how
        surely; `expected_rate`; `images`, on which thresholds were calibrated, and
        `training_images`.
    """

    stages: tuple[StageCheck, ...]
    record: dict[str, Any]

    def require_of(self, model: CodedModel) -> None:
        """Checks that it was calibrated for a model.

        Raises:
          ValueError: it was for another one.
        """
        own, given = fingerprint(model), self.record["model"]
        require("check", given, given == own, f"one of this model ({own})")

    def save(self, folder: str | os.PathLike) -> None:
        """Writes `check.npz` into a folder, the workdir of the run."""
        arrays = {
            f"{number}/{name}": np.asarray(array)
            for number, stage in enumerate(self.stages)
            for name, array in stage._asdict().items()
        }
        unfinished = Path(folder) / f"{CHECK}.tmp"
        with open(unfinished, "wb") as file:
            record = np.array(json.dumps(self.record))
            np.savez(file, allow_pickle=False, record=record, **arrays)
        unfinished.replace(Path(folder) / CHECK)


def load_check(folder: str | os.PathLike, model: CodedModel) -> Check:
    """Reads the check of a run.

    Args:
      folder: its workdir.
      model: the loaded run.

    Raises:
      ValueError: the folder has no check, or one of another model.
    """
    path = Path(folder) / CHECK
    accepted = f"a folder with a {CHECK}, as `python experiments/check.py` writes it,"
    require("folder", os.fspath(folder), path.exists(), accepted)
    with np.load(path, allow_pickle=False) as stored:
        record = json.loads(str(stored["record"]))
        stages = tuple(
            StageCheck(
                *(jnp.asarray(stored[f"{number}/{x}"]) for x in StageCheck._fields)
            )
            for number in range(len(model.pipeline.stages))
            if f"{number}/means" in stored
        )
    check = Check(stages, record)
    check.require_of(model)
    return check


def fingerprint(model: CodedModel) -> str:
    """Returns 16 hexadecimal digits for the variables and the codes of a model."""
    leaves = jax.tree.leaves((model.frozen, model.params))
    sizes = [(s.blocks, s.plan, s.result_shape) for s in model.pipeline.stages]
    return provenance.digest([f"{model.pipeline.n} {sizes}"], leaves)


def checked_patterns(pipeline: Pipeline) -> list[Pattern]:
    """Returns the erasure patterns that leave a result more than is needed, of
    `MOST_LOST` at most, fewest losses first.

    Raises:
      ValueError: there is none, or the results are those of several images.
    """
    rules = [stage.code.quorum.name for stage in pipeline.stages]
    # Of a code without parity pieces no result is left to check.
    fits = ALL_DATA.name not in rules and not pipeline.examples.grouped
    require("code", rules, fits, "one of single images that sends parity pieces")
    most = min(pipeline.r, MOST_LOST + 1)
    return [p for lost in range(most) for p in patterns(pipeline.n, lost)]
