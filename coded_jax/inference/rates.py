"""Rates: how fast a device, the client and the links between them are."""

from __future__ import annotations

import dataclasses

from coded_jax.inference.costs import Cost, Round
from coded_jax.settings import at_least, check, more_than, setting


@dataclasses.dataclass(frozen=True)
class Rates:
    """Speeds that nothing delays, in units that do not depend on the network.

    Each device has a link of its own; the client's own link is no limit.

    Raises:
      ValueError: a value is out of range.
    """

    bandwidth: float = setting(1e7, "bytes/s of a device's link", more_than(0))
    link: float = setting(
        1e-3, "seconds of a round trip of a link, whatever is sent", at_least(0)
    )
    message: float = setting(
        5e-5,
        "seconds of the client for each message that it sends or takes",
        at_least(0),
    )
    speed: float = setting(1e10, "operations/s of a device", more_than(0))
    client: float = setting(
        0.5, "speed of the client over that of a device", more_than(0)
    )

    def __post_init__(self) -> None:
        check(self)

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
