"""Flags of services, shared by the scripts that start workers."""

from __future__ import annotations

from absl import flags

from coded_jax.latency import stragglers
from coded_jax.service import ENGINES, Faults, corruption
from coded_jax.service.config import SHORTFALLS, ServeConfig
from coded_jax.service.faults import ANY
from coded_jax.settings import settings

HELP = {setting.name: setting.help for setting in settings(ServeConfig)}
DEFAULTS = ServeConfig()

ENGINE = flags.DEFINE_enum("engine", "ray", list(ENGINES), "of the workers")
BATCHES = flags.DEFINE_multi_integer("batch", list(DEFAULTS.batches), HELP["batches"])
ADDRESS = flags.DEFINE_string("address", DEFAULTS.address, HELP["address"])
RECONNECT_FOR = flags.DEFINE_float(
    "reconnect_for", DEFAULTS.reconnect_for, HELP["reconnect_for"]
)
DEADLINE = flags.DEFINE_float("deadline", DEFAULTS.deadline, HELP["deadline"])
IN_FLIGHT = flags.DEFINE_integer("in_flight", DEFAULTS.in_flight, HELP["in_flight"])
QUEUE = flags.DEFINE_integer("queue", DEFAULTS.queue, HELP["queue"])
SHORTFALL = flags.DEFINE_enum(
    "shortfall", DEFAULTS.shortfall, SHORTFALLS, HELP["shortfall"]
)
HEDGE_AFTER = flags.DEFINE_float(
    "hedge_after", DEFAULTS.hedge_after, HELP["hedge_after"]
)
PATIENCE = flags.DEFINE_float("patience", DEFAULTS.patience, HELP["patience"])
LARGEST = flags.DEFINE_integer("largest", DEFAULTS.largest, HELP["largest"])
MAX_BATCH = flags.DEFINE_integer("max_batch", DEFAULTS.max_batch, HELP["max_batch"])
MAX_WAIT = flags.DEFINE_float("max_wait", DEFAULTS.max_wait, HELP["max_wait"])
SPARES = flags.DEFINE_integer("spares", DEFAULTS.spares, HELP["spares"])
CHECK_WAIT = flags.DEFINE_float("check_wait", DEFAULTS.check_wait, HELP["check_wait"])
STRIKES = flags.DEFINE_integer("strikes", DEFAULTS.strikes, HELP["strikes"])
OPTIONS = (
    ADDRESS,
    RECONNECT_FOR,
    DEADLINE,
    IN_FLIGHT,
    QUEUE,
    SHORTFALL,
    HEDGE_AFTER,
    PATIENCE,
    LARGEST,
    MAX_BATCH,
    MAX_WAIT,
    SPARES,
    CHECK_WAIT,
    STRIKES,
)
"""Flags that have the names of fields of `ServeConfig`."""

DELAY = flags.DEFINE_enum(
    "delay", None, tuple(stragglers.DISTRIBUTIONS), "of workers, on purpose"
)
DELAY_PARAMETERS = flags.DEFINE_multi_string(
    "delay_parameters",
    [],
    "of the delay, as 0.01,0.05 (shift and mean of shifted_exponential) or the path of "
    "a trace; once for all workers, or once for each",
)
STRAGGLERS = flags.DEFINE_integer(
    "stragglers", None, "workers of a request that are delayed; all if not given"
)
EXCEPTIONS = flags.DEFINE_float("exceptions", 0.0, "probability that a piece raises")
NANS = flags.DEFINE_float("nans", 0.0, "probability that a result is NaN")
CORRUPTIONS = flags.DEFINE_float(
    "corruptions", 0.0, "probability that a result is finite and wrong"
)
CORRUPTION = flags.DEFINE_enum(
    "corruption",
    ANY,
    (ANY, *corruption.KINDS),
    "in which way: zeros, noise of the same moments, the share of the image before, or "
    "the top exponent bit of the largest value flipped",
)
KILLS = flags.DEFINE_float("kills", 0.0, "workers killed per second")
FREEZES = flags.DEFINE_float("freezes", 0.0, "workers frozen per second")
FAULT_SEED = flags.DEFINE_integer("fault_seed", 0, "fixes what goes wrong")


def delays_from_flags() -> tuple[stragglers.Distribution, ...]:
    """Returns the distribution of delays, one or one for each worker; none by default.

    Raises:
      ValueError: the parameters are not those of the distribution.
    """
    if DELAY.value is None:
        if DELAY_PARAMETERS.value or STRAGGLERS.value is not None:
            raise ValueError("delay: not given, a distribution accepted")
        return ()
    per_worker = DELAY_PARAMETERS.value or [""]
    return tuple(
        stragglers.make_distribution(DELAY.value, text.split(",") if text else [])
        for text in per_worker
    )


def faults_from_flags() -> Faults | None:
    """Returns the faults that the flags ask for; None without any.

    Raises:
      ValueError: a value is out of range.
    """
    faults = Faults(
        delays_from_flags(),
        STRAGGLERS.value,
        EXCEPTIONS.value,
        NANS.value,
        CORRUPTIONS.value,
        CORRUPTION.value,
        KILLS.value,
        FREEZES.value,
        seed=FAULT_SEED.value,
    )
    quiet = Faults(corruption=faults.corruption, seed=faults.seed)
    return None if faults == quiet else faults
