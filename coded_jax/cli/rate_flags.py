"""Flags of the rates: speeds of devices, client and links."""

from __future__ import annotations

from absl import flags

from coded_jax.inference.rates import Rates

DEFAULTS = Rates()

BANDWIDTH = flags.DEFINE_float("bandwidth", DEFAULTS.bandwidth, "bytes/s of a link")
LINK = flags.DEFINE_float("link", DEFAULTS.link, "seconds of a round trip of a link")
MESSAGE = flags.DEFINE_float(
    "message",
    DEFAULTS.message,
    "seconds of the client for each message that it sends or takes",
)
SPEED = flags.DEFINE_float("speed", DEFAULTS.speed, "operations/s of a device")
CLIENT = flags.DEFINE_float(
    "client", DEFAULTS.client, "speed of the client over that of a device"
)


def rates_from_flags() -> Rates:
    """Returns the speeds that the flags have.

    Raises:
      ValueError: a value is out of range.
    """
    flags_in_order = (BANDWIDTH, LINK, MESSAGE, SPEED, CLIENT)
    return Rates(*(flag.value for flag in flags_in_order))
