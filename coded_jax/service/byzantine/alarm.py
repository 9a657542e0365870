"""The alarm: which images have a wrong result among those that arrived, and which.

Both functions are compiled once for a stage and a batch size: which results arrived is
data. `inspect` is for every request, `name_culprit` for those with an alarm.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from coded_jax.inference.pipeline import Pipeline
from coded_jax.service.byzantine import agreement
from coded_jax.service.byzantine.check import StageCheck
from coded_jax.types import Kept, PyTree

UNNAMED = -1

CLEAR = 0.25
"""Difference of ratios beyond which one set of results agrees clearly better."""


class Alarm(NamedTuple):
    """Images of a stage with a wrong result, and results that cannot be right.

    Attributes:
      suspicious: bool `[B]`, whether a result of the image is wrong.
      ratio: float32 `[B]`, the largest statistic over its threshold; 0 where nothing
        can be checked, infinite where a value is implausible.
      implausible: bool `[n, B]`, results with a value that no right one has, see
        `plausible`: these are wrong whatever the others say.
    """

    suspicious: jax.Array
    ratio: jax.Array
    implausible: jax.Array


@functools.partial(jax.jit, static_argnums=(0, 1))
def inspect(
    pipeline: Pipeline,
    coded: int,
    check: StageCheck,
    params: PyTree,
    shares: tuple[jax.Array, ...],
    available: jax.Array,
    kept: Kept = (),
) -> Alarm:
    """Checks the results of a coded stage against each other.

    Args:
      pipeline: the functions.
      coded: number of the stage, from 0.
      check: of the stage.
      params: of its code.
      shares: n results, as workers return them; anything for those that did not arrive.
      available: bool `[n]`, the results that arrived.
      kept: what the client keeps beside the queries.
    """
    features = jnp.stack(shares)
    implausible = ~plausible(check, features) & available[:, None]
    return _alarm(
        pipeline, coded, check, params, features, available, kept, implausible
    )


@functools.partial(jax.jit, static_argnums=(0, 1))
def name_culprit(
    pipeline: Pipeline,
    coded: int,
    check: StageCheck,
    params: PyTree,
    shares: tuple[jax.Array, ...],
    available: jax.Array,
    kept: Kept = (),
) -> jax.Array:
    """Names the wrong result of each image; arguments as of `inspect`.

    It is the one without which the others agree, if they do so clearly better than
    without any other one: so two results more than are needed must have arrived, and of
    two copies that differ neither is named, unless other results speak against it. A
    result with a value that no right one has is named by that alone.

    Returns:
      int32 `[B]`, `UNNAMED` where no result is named.
    """
    features = jnp.stack(shares)
    implausible = ~plausible(check, features) & available[:, None]

    def ratio_without(candidate: jax.Array) -> jax.Array:
        is_left = jnp.arange(len(features)) == candidate
        rest = available & ~is_left
        alarm = _alarm(
            pipeline,
            coded,
            check,
            params,
            features,
            rest,
            kept,
            implausible & rest[:, None],
        )
        counts = available[candidate] & (check.places[_number(rest)] >= 0)
        return jnp.where(counts & ~alarm.suspicious, alarm.ratio, jnp.inf)

    ratios = jax.lax.map(ratio_without, jnp.arange(len(features)))
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


def plausible(check: StageCheck, features: jax.Array) -> jax.Array:
    """Returns the mask of results whose values all lie in the range of right ones,
    bool `[n, B]`.

    Compared are bits: no unit that takes tiny numbers for zeros hides them.

    Args:
      check: of the stage.
      features: `[n, B, ...]`, float32 or bfloat16.
    """
    bits = value_bits(features)
    magnitude = bits & 0x7FFFFFFF
    fits = (magnitude >= check.magnitudes[0]) & (magnitude <= check.magnitudes[1])
    signed = (bits >> 31 == 0) | check.negative
    fits = (magnitude == 0) | (fits & signed)
    return fits.all(axis=range(2, features.ndim))


def value_bits(values: jax.Array) -> jax.Array:
    """Returns the bits of float32 or bfloat16 numbers as those of float32, uint32."""
    if values.dtype == jnp.bfloat16:
        short = jax.lax.bitcast_convert_type(values, jnp.uint16)
        return short.astype(jnp.uint32) << 16
    return jax.lax.bitcast_convert_type(values.astype(jnp.float32), jnp.uint32)


def _alarm(
    pipeline: Pipeline,
    coded: int,
    check: StageCheck,
    params: PyTree,
    features: jax.Array,
    arrived: jax.Array,
    kept: Kept,
    implausible: jax.Array,
) -> Alarm:
    """Computes `inspect` of features `[n, B, ...]` whose values may be implausible."""
    place = check.places[_number(arrived)]
    largest = largest_statistic(
        pipeline, coded, check, place, params, features, arrived, kept, implausible
    )
    ratio = jnp.where(place >= 0, largest / check.thresholds[place], 0)
    ratio = jnp.where(implausible.any(axis=0), jnp.inf, ratio)
    return Alarm(~(ratio <= 1), ratio, implausible)


def largest_statistic(
    pipeline: Pipeline,
    coded: int,
    check: StageCheck,
    place: jax.Array,
    params: PyTree,
    features: jax.Array,
    arrived: jax.Array,
    kept: Kept,
    implausible: jax.Array,
) -> jax.Array:
    """Returns the largest of all statistics, in units of their scales, float32 `[B]`.

    Implausible results are zeros in it, so that nothing overflows.
    """
    use = arrived[:, None] & ~implausible
    features = jnp.where(
        use.reshape(*use.shape, *[1] * (features.ndim - 2)), features, 0
    )
    stage = pipeline.stages[coded]
    differs = agreement.difference(check, place, stage, params, features, arrived, kept)
    values = jax.vmap(agreement.statistics)(
        check.whiteners[place], check.alone, differs.coordinates, differs.left
    )
    centers, scales = check.centers[place], check.scales[place]
    standard = ((values - centers[..., None]) / scales[..., None]).max(axis=1)
    rounded = differs.largest / check.roundings[place][:, None]
    of_results = jnp.where(check.exact[place][:, None], rounded, standard)
    return jnp.where(arrived[:, None], of_results, -jnp.inf).max(axis=0)


def _number(arrived: jax.Array) -> jax.Array:
    """Returns `sum(arrived * 2^i)`."""
    return (arrived * 2 ** jnp.arange(len(arrived))).sum()
