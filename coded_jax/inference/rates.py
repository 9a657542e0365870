"""Rates: how fast a device, the client and the links between them are."""

from __future__ import annotations

import dataclasses
import math

from coded_jax.checks import require
from coded_jax.inference.costs import Cost, Round


@dataclasses.dataclass(frozen=True)
class Rates:
    """Speeds that nothing delays, in units that do not depend on the network.

    Attributes:
      bandwidth: bytes per second between a device and the client. Each device has a
        link of its own; the client's own link is no limit.
      link: seconds of a round trip, whatever is sent.
      message: seconds of the client for each message that it sends or takes.
      speed: floating point operations per second of a device.
      client: speed of the client over that of a device.

    Raises:
      ValueError: a value is out of range.
    """

    bandwidth: float = 1e7
    link: float = 1e-3
    message: float = 5e-5
    speed: float = 1e10
    client: float = 0.5

    def __post_init__(self) -> None:
        for name in ("bandwidth", "speed", "client"):
            value = getattr(self, name)
            require(name, value, 0 < value < math.inf, "more than 0")
        for name in ("link", "message"):
            value = getattr(self, name)
            require(name, value, 0 <= value < math.inf, "0 or more")

    def client_seconds(self, flops: float) -> float:
        """Returns the seconds that the client needs for some operations."""
        return flops / (self.client * self.speed)

    def round_seconds(self, trip: Round, queries: int) -> float:
        """Returns the seconds of a round that nothing delays.

        The client encodes, and sends one piece after the other; the device that is sent
        the last one computes it and returns the result, which is decoded.

        Args:
          trip: the round, for one image.
          queries: pieces that are sent.
        """
        coding = self.client_seconds(trip.encode_flops + trip.decode_flops)
        moved = (trip.bytes_in + trip.bytes_out) / self.bandwidth
        messages = (queries + 1) * self.message
        return coding + messages + self.link + moved + trip.device_flops / self.speed

    def seconds(self, cost: Cost) -> float:
        """Returns the seconds of an inference of one image that nothing delays.

        Args:
          cost: its record, of `cost.devices` pieces in every round.
        """
        rounds = sum(self.round_seconds(trip, cost.devices) for trip in cost.rounds)
        return self.client_seconds(cost.client_flops) + rounds
