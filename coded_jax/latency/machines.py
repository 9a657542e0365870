"""Machines: how fast devices, client and links are, how often devices fail, and draws.

`Conditions` say nothing of the network, so that a map can be drawn over them for any.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from coded_jax.checks import require
from coded_jax.inference.costs import Round
from coded_jax.inference.rates import Rates
from coded_jax.latency import stragglers
from coded_jax.latency.stragglers import Distribution
from coded_jax.settings import FLOAT, at_least, between, one_of, setting, tuple_of


class Machine(NamedTuple):
    """The devices, each of them drawn by itself, their links, and the client.

    Attributes:
      compute: seconds of a device for the whole `F_Conv`; one with a share of its work
        needs that share of them.
      client: seconds of the client for the whole `F_Conv`; what it encodes, decodes and
        computes by itself takes its share of them. 0 for a client whose work is free.
      bandwidth: bytes per second between a device and the client; may be infinite.
      link: seconds that every round takes besides, whatever is sent.
      failure: probability that a device is dead, and never answers.
      each_round: whether all that is drawn is drawn anew in every round; else a device
        is slow, late or dead for a whole request.
      message: seconds of the client for each piece that it sends and each result that
        it takes, one after the other.
    """

    compute: Distribution
    client: float
    bandwidth: float = math.inf
    link: float = 0.0
    failure: float = 0.0
    each_round: bool = False
    message: float = 0.0

    def ways(self, trip: Round) -> tuple[float, float]:
        """Returns the seconds that a piece takes to its device, and a result back."""
        there, back = (x / self.bandwidth for x in (trip.bytes_in, trip.bytes_out))
        return there + self.link / 2, back + self.link / 2


class Draws(NamedTuple):
    """Random times of R requests: float32 `[n, R]`, or `[n, 1]` where all are alike.

    Attributes:
      compute: seconds that each device would need for the whole `F_Conv`.
      delay: seconds by which its results are late; infinite for a dead device.
      compute_again, delay_again: those of a piece that is sent once more.
    """

    compute: jax.Array
    delay: jax.Array
    compute_again: jax.Array
    delay_again: jax.Array


def draws(
    key: jax.Array, n: int, requests: int, machine: Machine, twice: int
) -> Callable[[int], Draws]:
    """Returns the draws of R requests in each round.

    Args:
      key: of the draws.
      n: devices.
      requests: R.
      machine: the devices.
      twice: first rounds of which pieces may be sent once more.

    Returns:
      Number of a round, from 0 -> draws of the devices in it, made when they are first
      asked for.
    """

    @functools.cache
    def of_round(i: int) -> Draws:
        # The first is that of machines whose devices are drawn once.
        own = jax.random.fold_in(key, i) if i else key
        return _draw(
            own, machine.compute, machine.failure, (n, requests), twice=i < twice
        )

    return of_round if machine.each_round else lambda i: of_round(0)


@functools.partial(jax.jit, static_argnames=("shape", "twice"))
def _draw(
    key: jax.Array,
    compute: Distribution,
    failure: float,
    shape: tuple[int, int],
    *,
    twice: bool,
) -> Draws:
    # Each set has a key of its own, so that no draw depends on which others are made.
    first, _, of_failures, second, _ = jax.random.split(key, 5)
    # As real numbers: a point of a stored map may say 0.
    dead = jax.random.bernoulli(of_failures, jnp.float32(failure), shape)
    nothing = jnp.zeros((shape[0], 1))
    return Draws(
        compute.sample(first, shape),
        jnp.where(dead, jnp.inf, 0.0),
        compute.sample(second, shape) if twice else nothing,
        # Whether who computes a piece once more is dead was drawn with its own piece.
        nothing,
    )


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
        one_of(("exponential", "pareto", "trace")),
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
        if self.trace or self.straggling == "trace":
            median = float(np.median(self.trace)) if self.trace else 0.0
            require("trace", median, 0 < median < math.inf, "a median above 0")

    def machine(self, whole_flops: float) -> Machine:
        """Returns the devices for a network.

        Args:
          whole_flops: operations of its whole `F_Conv`.
        """
        usual = whole_flops / self.speed
        if self.straggling == "trace":
            times = np.array(self.trace) * usual / np.median(self.trace)
            compute = stragglers.Trace(tuple(times.tolist()))
        elif self.tail == 0:
            compute = stragglers.Constant(usual)
        elif self.straggling == "pareto":
            compute = stragglers.Pareto(usual, 1 / self.tail)
        else:
            compute = stragglers.ShiftedExponential(usual, self.tail * usual)
        same = ("bandwidth", "link", "message", "failure", "each_round")
        return Machine(
            compute, usual / self.client, **{name: getattr(self, name) for name in same}
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
