"""Detection: which images have a wrong result among those that arrived, and which.

A check is calibrated for a model, and kept in a file. `inspect` is for every request,
`name_culprit` for those with an alarm: both are compiled once for a stage and a batch
size, since which results arrived is data.
"""

from __future__ import annotations

import dataclasses
import functools
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
from coded_jax.inference.pipeline import Pipeline, Results
from coded_jax.inference.stages import CodedStage
from coded_jax.runs import provenance
from coded_jax.runs.coded_model import CodedModel
from coded_jax.service.byzantine import agreement
from coded_jax.types import PyTree

UNNAMED = -1

CLEAR = 0.25
"""Difference of ratios beyond which one set of results agrees clearly better."""

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
        surely; `images`, on which thresholds were calibrated, and `training_images`.
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
        arrays = lambda i: [stored[f"{i}/{x}"] for x in StageCheck._fields]
        count = sum(name.endswith("/means") for name in stored)
        stages = [StageCheck(*map(jnp.asarray, arrays(i))) for i in range(count)]
    check = Check(tuple(stages), record)
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
      ValueError: there is none, or results are those of several images, or of views.
    """
    rules = [stage.code.quorum.name for stage in pipeline.stages]
    # Of a code without parity pieces no result is left to check.
    fits = ALL_DATA.name not in rules and not pipeline.examples.grouped
    require("code", rules, fits, "one of single images that sends parity pieces")
    require(
        "split", "views", pipeline.exact, "an exact split: views do not tell each other"
    )
    most = min(pipeline.r, MOST_LOST + 1)
    return [p for lost in range(most) for p in patterns(pipeline.n, lost)]


class Alarm(NamedTuple):
    """Images of a stage with a wrong result, and results that cannot be right.

    Attributes:
      suspicious: bool `[B]`, whether a result of the image is wrong.
      ratio: float32 `[B]`, the largest statistic over its threshold; 0 where nothing
        can be checked, infinite where a value is implausible.
      implausible: bool `[n, B]`, results with a value that no right one has: these are
        wrong whatever the others say.
    """

    suspicious: jax.Array
    ratio: jax.Array
    implausible: jax.Array


@functools.partial(jax.jit, static_argnums=0)
def inspect(
    stage: CodedStage,
    check: StageCheck,
    params: PyTree,
    results: Results,
    available: jax.Array,
) -> Alarm:
    """Checks the results of a coded stage against each other.

    Args:
      stage: the functions.
      check: of the stage.
      params: of its code.
      results: n features, as workers return them, an array or a tuple of n; anything
        for those that did not arrive.
      available: bool `[n]`, the results that arrived.
    """
    results, implausible = _stacked(check, results, available)
    return _alarm(stage, check, params, results, available, implausible=implausible)


@functools.partial(jax.jit, static_argnums=0)
def name_culprit(
    stage: CodedStage,
    check: StageCheck,
    params: PyTree,
    results: Results,
    available: jax.Array,
) -> jax.Array:
    """Names the wrong result of each image; arguments as of `inspect`.

    It is the one without which the others agree, if they do so clearly better than
    without any other one: so two results more than are needed must have arrived, and of
    two copies that differ neither is named, unless other results speak against it. A
    result with a value that no right one has is named by that alone.

    Returns:
      int32 `[B]`, `UNNAMED` where no result is named.
    """
    results, implausible = _stacked(check, results, available)
    pieces = jnp.arange(len(available))

    def ratio_without(candidate: jax.Array) -> jax.Array:
        rest = available & (pieces != candidate)
        wrong = implausible & rest[:, None]
        alarm = _alarm(stage, check, params, results, rest, implausible=wrong)
        counts = available[candidate] & (check.places[_number(rest)] >= 0)
        return jnp.where(counts & ~alarm.suspicious, alarm.ratio, jnp.inf)

    ratios = jax.lax.map(ratio_without, pieces)
    best, second = jnp.sort(ratios, axis=0)[:2]
    clear = jnp.isfinite(best) & (second - best > CLEAR)
    best = jnp.where(clear, ratios.argmin(axis=0), UNNAMED)
    alone = implausible.sum(axis=0) == 1
    named = jnp.where(alone, implausible.argmax(axis=0), best)
    return named.astype(jnp.int32)


def culprit_of_request(suspicious: Any, named: Any) -> int:
    """Returns the result that most suspicious images of a request name.

    Args:
      suspicious: bool `[B]`, of `inspect`.
      named: int32 `[B]`, of `name_culprit`.

    Returns:
      Its index; `UNNAMED` where none is named, or two by as many images.
    """
    votes = np.asarray(named)[np.asarray(suspicious)]
    counts = np.bincount(votes[votes != UNNAMED])
    most = np.flatnonzero(counts == counts.max(initial=1))
    return int(most[0]) if len(most) == 1 else UNNAMED


def value_bits(values: jax.Array) -> jax.Array:
    """Returns the bits of float32 or bfloat16 numbers as those of float32, uint32."""
    if values.dtype == jnp.bfloat16:
        short = jax.lax.bitcast_convert_type(values, jnp.uint16)
        return short.astype(jnp.uint32) << 16
    return jax.lax.bitcast_convert_type(values.astype(jnp.float32), jnp.uint32)


def _stacked(
    check: StageCheck, results: Results, available: jax.Array
) -> tuple[Results, jax.Array]:
    """Returns results with one array of features, and those that are implausible, bool
    `[n, B]`: with a value out of the range of right ones."""
    features = jnp.stack(results.features)
    # Bits are compared: no unit that takes tiny numbers for zeros hides them.
    bits = value_bits(features)
    magnitude = bits & 0x7FFFFFFF
    fits = (magnitude >= check.magnitudes[0]) & (magnitude <= check.magnitudes[1])
    signed = (bits >> 31 == 0) | check.negative
    fits = (magnitude == 0) | (fits & signed)
    plausible = fits.all(axis=range(2, features.ndim))
    return results._replace(features=features), ~plausible & available[:, None]


def _alarm(
    stage: CodedStage,
    check: StageCheck,
    params: PyTree,
    results: Results,
    arrived: jax.Array,
    *,
    implausible: jax.Array,
) -> Alarm:
    """Compares the largest of all statistics, in units of their scales, with its
    threshold. Implausible results are zeros in it, so that nothing overflows."""
    place, features = check.places[_number(arrived)], results.features
    use = arrived[:, None] & ~implausible
    use = use.reshape(*use.shape, *[1] * (features.ndim - 2))
    results = results._replace(features=jnp.where(use, features, 0))
    directions = agreement.Directions(check.means, check.bases)
    seen = agreement.observe(stage, params, directions, results, arrived)
    others = arrived[None] & ~jnp.eye(len(arrived), dtype=bool)

    fits = (check.weights, check.whiteners, check.centers, check.scales)
    fits = [of_sets[place] for of_sets in fits]

    def of_result(own: Any, decoded: Any, others: Any, alone: Any, fit: Any) -> Any:
        """Returns the statistics `[T, B]` of a result in their scales."""
        weights, whitener, centers, scales = fit
        inputs = agreement.regressors(check.hidden, seen.own, decoded, others)
        values = agreement.statistics(whitener, alone, own, own - inputs @ weights)
        return (values - centers[:, None]) / scales[:, None]

    of_results = jax.vmap(of_result)
    standard = of_results(seen.own, seen.decoded, others, check.alone, fits).max(axis=1)
    rounded = seen.largest / check.roundings[place][:, None]
    compared = jnp.where(check.exact[place][:, None], rounded, standard)
    largest = jnp.where(arrived[:, None], compared, -jnp.inf).max(axis=0)
    ratio = jnp.where(place >= 0, largest / check.thresholds[place], 0)
    ratio = jnp.where(implausible.any(axis=0), jnp.inf, ratio)
    return Alarm(~(ratio <= 1), ratio, implausible)


def _number(arrived: jax.Array) -> jax.Array:
    """Returns `sum(arrived * 2^i)`."""
    return (arrived * 2 ** jnp.arange(len(arrived))).sum()
