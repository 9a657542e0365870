"""Flags of services, shared by the scripts that start workers."""

from __future__ import annotations

from typing import Any

from absl import flags

from coded_jax.cli import setting_flags
from coded_jax.latency import stragglers
from coded_jax.service import ENGINES, Faults
from coded_jax.service.config import ServeConfig
from coded_jax.settings import settings

HELP = {declared.name: declared.help for declared in settings(ServeConfig)}
OPTIONS = [name for name in HELP if name not in ("batches", "devices")]
"""Settings whose flags have their names."""
setting_flags.define(ServeConfig, OPTIONS)
BATCHES = flags.DEFINE_multi_integer("batch", ServeConfig().batches, HELP["batches"])
ENGINE = flags.DEFINE_enum("engine", "ray", list(ENGINES), "of the workers")

DELAY = flags.DEFINE_enum(
    "delay", None, tuple(stragglers.DISTRIBUTIONS), "of workers, on purpose"
)
DELAY_PARAMETERS = flags.DEFINE_multi_string(
    "delay_parameters",
    [],
    "of the delay, as 0.01,0.05 (shift and mean of shifted_exponential) or the path of "
    "a trace; once for all workers, or once for each",
)
FAULTS = [declared.name for declared in settings(Faults) if declared.name != "seed"]
setting_flags.define(Faults, FAULTS)
FAULT_SEED = flags.DEFINE_integer("fault_seed", 0, "fixes what goes wrong")


def options_from_flags() -> dict[str, Any]:
    """Returns the settings of the service.

    Raises:
      ValueError: a value is out of range.
    """
    options = setting_flags.read(ServeConfig, OPTIONS)
    options["batches"] = tuple(BATCHES.value)
    ServeConfig(**options)
    return options


def faults_from_flags() -> Faults | None:
    """Returns the faults that the flags ask for; None without any.

    Raises:
      ValueError: a value is out of range, or the parameters are not those of the
        distribution of delays.
    """
    drawn = setting_flags.read(Faults, FAULTS)
    delays = ()
    if DELAY.value is not None:
        delays = tuple(
            stragglers.make_distribution(DELAY.value, text.split(",") if text else [])
            for text in DELAY_PARAMETERS.value or [""]
        )
    elif DELAY_PARAMETERS.value or drawn["stragglers"] is not None:
        raise ValueError("delay: not given, a distribution accepted")
    faults = Faults(delays=delays, seed=FAULT_SEED.value, **drawn)
    quiet = Faults(corruption=faults.corruption, seed=faults.seed)
    return None if faults == quiet else faults
