"""Conditions: how fast devices, client and links are, and how often devices fail.

They say nothing of the network, so that a map can be drawn over them for any.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from coded_jax.checks import require
from coded_jax.inference.rates import Rates
from coded_jax.latency.simulation import Machine
from coded_jax.latency.stragglers import (
    Constant,
    Distribution,
    Pareto,
    ShiftedExponential,
    Trace,
)
from coded_jax.settings import FLOAT, at_least, between, one_of, setting, tuple_of

STRAGGLING = ("exponential", "pareto", "trace")


@dataclasses.dataclass(frozen=True)
class Conditions(Rates):
    """Conditions that a request meets: rates, and what delays a device on it.

    Raises:
      ValueError: a value is out of range.
    """

    straggling: str = setting(
        "exponential",
        "of a device that needs the time T for a round: exponential (an exponential "
        "time of mean tail T more), pareto (T times a Pareto variable of at least 1 "
        "and shape 1 / tail), or trace (T times a measured latency over the median)",
        one_of(STRAGGLING),
    )
    tail: float = setting(0.2, "see straggling; without effect on a trace", at_least(0))
    trace: tuple[float, ...] = setting(
        (), "measured latencies, in any unit", form=tuple_of(FLOAT, ",", "numbers")
    )
    failure: float = setting(
        0.01,
        "probability that a device does not answer in a round, however long it is",
        between(0, 1),
    )
    each_round: bool = setting(
        True,
        "devices are drawn anew in every round; else a device is slow or dead for a "
        "whole request",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        fits = len(self.trace) > 0 or self.straggling != "trace"
        require("trace", self.trace, fits, "latencies, where straggling is trace,")
        if self.trace:
            median = float(np.median(self.trace))
            require("trace", median, 0 < median < math.inf, "a median above 0")

    def machine(self, whole_flops: float) -> Machine:
        """Returns the devices for a network.

        Args:
          whole_flops: operations of its whole `F_Conv`.
        """
        seconds = whole_flops / self.speed
        compute: Distribution
        if self.straggling == "trace":
            times = np.array(self.trace) * seconds / np.median(self.trace)
            compute = Trace(tuple(times.tolist()))
        elif self.tail == 0:
            compute = Constant(seconds)
        elif self.straggling == "pareto":
            compute = Pareto(seconds, 1 / self.tail)
        else:
            compute = ShiftedExponential(seconds, self.tail * seconds)
        return Machine(
            compute,
            seconds / self.client,
            bandwidth=self.bandwidth,
            link=self.link,
            message=self.message,
            failure=self.failure,
            each_round=self.each_round,
        )


AXES = {
    "bandwidth": "bandwidth of a link, bytes/s",
    "link": "round trip of a link, s",
    "message": "client's time for a message, s",
    "speed": "speed of a device, flop/s",
    "client": "speed of the client, in devices",
    "tail": "straggling",
    "failure": "probability that a device fails in a round",
}
"""Fields that a map may have as an axis, and their names."""
