"""The flags of the runtime, shared by the scripts that start workers."""

from __future__ import annotations

from absl import flags

from coded_jax import serving
from coded_jax.latency import stragglers
from coded_jax.serving.first_k import SHORTFALLS

ENGINE = flags.DEFINE_enum("engine", "ray", serving.ENGINES, "what computes the pieces")
ADDRESS = flags.DEFINE_string(
    "address", None, "host:port of a Ray cluster; one of this machine if not given"
)
BATCHES = flags.DEFINE_multi_integer(
    "batch", [1], "size of requests that are compiled before the first one"
)
DEADLINE = flags.DEFINE_float("deadline", 10.0, "seconds that a request may take")
IN_FLIGHT = flags.DEFINE_integer("in_flight", 4, "requests computed at the same time")
QUEUE = flags.DEFINE_integer("queue", 64, "requests that may wait for that")
SHORTFALL = flags.DEFINE_enum(
    "shortfall", "error", SHORTFALLS, "too few results by the deadline"
)
HEDGE_AFTER = flags.DEFINE_float(
    "hedge_after", None, "seconds after which missing pieces are sent again"
)
PATIENCE = flags.DEFINE_float(
    "patience", 5.0, "seconds without a sign after which a worker is started anew"
)
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
KILLS = flags.DEFINE_float("kills", 0.0, "workers killed per second")
FREEZES = flags.DEFINE_float("freezes", 0.0, "workers frozen per second")
FAULT_SEED = flags.DEFINE_integer("fault_seed", 0, "fixes what goes wrong")


def delays_from_flags() -> tuple[stragglers.Distribution, ...]:
    """The distribution of delays, one or one for every worker; none if not asked for.

    Raises:
      ValueError: the parameters are not those of the distribution.
    """
    if DELAY.value is None:
        if DELAY_PARAMETERS.value or STRAGGLERS.value is not None:
            raise ValueError("delay: not given, a distribution accepted")
        return ()
    each = DELAY_PARAMETERS.value or [""]
    return tuple(
        stragglers.make(DELAY.value, text.split(",") if text else []) for text in each
    )


def faults_from_flags() -> serving.Faults | None:
    """What goes wrong on purpose; None if nothing does.

    Raises:
      ValueError: a value is out of range.
    """
    faults = serving.Faults(
        delays_from_flags(),
        STRAGGLERS.value,
        EXCEPTIONS.value,
        NANS.value,
        KILLS.value,
        FREEZES.value,
        seed=FAULT_SEED.value,
    )
    return None if faults == serving.Faults(seed=faults.seed) else faults
