"""Flags of the conditions that a map is drawn over."""

from __future__ import annotations

from typing import Any

from absl import flags

from coded_jax.checks import require
from coded_jax.cli import setting_flags
from coded_jax.latency.conditions import AXES, Conditions
from coded_jax.latency.maps import Plane, log_values
from coded_jax.latency.stragglers import Trace
from coded_jax.settings import settings

MOST = 100  # points of an axis: each pair of points is a comparison of its own
NAMES = [x.name for x in settings(Conditions) if x.name != "trace"]
setting_flags.define(Conditions, NAMES)
TRACE = flags.DEFINE_string(
    "trace", None, "file of measured latencies, one in a line, for --straggling=trace"
)
X, Y = (
    flags.DEFINE_string(
        name,
        default,
        f"axis: one of {', '.join(AXES)}, its least and greatest value, and how many "
        "points, evenly spaced in their logarithms",
    )
    for name, default in (("x", "bandwidth,1e5,1e9,9"), ("y", "tail,0.03,3,9"))
)


def plane_from_flags() -> Plane:
    """Returns the plane that the flags describe.

    Raises:
      ValueError: an axis is none, or a value is out of range.
    """
    axes: dict[str, Any] = {}
    accepted = f"an axis, two numbers above 0 and 2..{MOST} points, as tail,0.03,3,9,"
    for flag in (X, Y):
        axis, *numbers = flag.value.split(",")
        try:
            least, most, points = map(float, numbers)
        except ValueError:
            raise ValueError(
                f"{flag.name}: {flag.value!r} given, {accepted} accepted"
            ) from None
        fits = 0 < least < most and 2 <= points <= MOST and points == int(points)
        require(flag.name, flag.value, axis in AXES and fits, accepted)
        axes[flag.name] = axis
        axes[f"{flag.name}_values"] = log_values(least, most, int(points))
    conditions = setting_flags.read(Conditions, NAMES)
    fits = TRACE.value is None or conditions["straggling"] == "trace"
    require("trace", TRACE.value, fits, "none without --straggling=trace")
    trace = Trace.read(TRACE.value).values if TRACE.value else ()
    plane = Plane(**axes, fixed=Conditions(**conditions, trace=trace))
    plane.check()
    return plane
