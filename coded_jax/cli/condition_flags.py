"""Flags of the conditions that a map is drawn over."""

from __future__ import annotations

import dataclasses
from typing import Any

from absl import flags

from coded_jax.checks import require
from coded_jax.cli.rate_flags import rates_from_flags
from coded_jax.latency.conditions import AXES, STRAGGLING, Conditions
from coded_jax.latency.maps import log_values
from coded_jax.latency.plane import Plane
from coded_jax.latency.stragglers import Trace

DEFAULTS = Conditions()
MOST = 100  # points of an axis: each pair of points is a comparison of its own

STRAGGLING_FLAG = flags.DEFINE_enum(
    "straggling",
    DEFAULTS.straggling,
    STRAGGLING,
    "of devices, beside the time T that they need: exponential (mean tail x T more), "
    "pareto (T times a Pareto variable of shape 1 / tail), or trace",
)
TAIL = flags.DEFINE_float("tail", DEFAULTS.tail, "see --straggling")
TRACE = flags.DEFINE_string(
    "trace", None, "file of measured latencies, one in a line, for --straggling=trace"
)
FAILURE = flags.DEFINE_float(
    "failure", DEFAULTS.failure, "probability that a device fails in a round"
)
EACH_ROUND = flags.DEFINE_bool(
    "each_round",
    DEFAULTS.each_round,
    "devices are drawn anew in every round; else a device is slow or dead for a whole "
    "request",
)
RANGES = {"x": "bandwidth,1e5,1e9,9", "y": "tail,0.03,3,9"}
X, Y = (
    flags.DEFINE_string(
        name,
        default,
        f"axis: one of {', '.join(AXES)}, its least and greatest value, and how many "
        "points, evenly spaced in their logarithms",
    )
    for name, default in RANGES.items()
)


def conditions_from_flags() -> Conditions:
    """Returns the conditions that the flags have.

    Raises:
      ValueError: a value is out of range.
    """
    traced = STRAGGLING_FLAG.value == "trace"
    fits = TRACE.value is None or traced
    require("trace", TRACE.value, fits, "none without --straggling=trace")
    trace = Trace.read(TRACE.value).values if TRACE.value else ()
    return Conditions(
        *dataclasses.astuple(rates_from_flags()),
        STRAGGLING_FLAG.value,
        TAIL.value,
        trace,
        FAILURE.value,
        EACH_ROUND.value,
    )


def plane_from_flags() -> Plane:
    """Returns the plane that the flags describe.

    Raises:
      ValueError: an axis is none, or a value is out of range.
    """
    axes: dict[str, Any] = {}
    for flag in (X, Y):
        axes |= _axis(flag.name, flag.value)
    plane = Plane(**axes, fixed=conditions_from_flags())
    plane.check()
    return plane


def _axis(name: str, text: str) -> dict[str, Any]:
    axis, *numbers = text.split(",")
    accepted = f"an axis, two numbers above 0 and 2..{MOST} points, as tail,0.03,3,9,"
    try:
        least, most, points = map(float, numbers)
    except ValueError:
        raise ValueError(f"{name}: {text!r} given, {accepted} accepted") from None
    fits = 0 < least < most and 2 <= points <= MOST and points == int(points)
    require(name, text, axis in AXES and fits, accepted)
    return {name: axis, f"{name}_values": log_values(least, most, int(points))}
