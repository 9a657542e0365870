"""The machine that a benchmark runs on, and what else it does meanwhile."""

from __future__ import annotations

import os
import platform
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from coded_jax.runs import provenance

PROC = Path("/proc")
LIMIT = 0.1  # cores; daemons of an idle machine stay below a twentieth
SECONDS = 1.0  # of one look at what others use
PATIENCE = 60.0  # seconds
INSTRUCTIONS = ("avx2", "avx512f", "avx512_bf16", "amx_tile", "asimd", "sve")
NUMBERS = ("family", "model", "stepping")
VARIABLES = ("XLA_FLAGS", "OMP_NUM_THREADS", "OMP_WAIT_POLICY", "NPROC", "LD_PRELOAD")
WAY_OUT = (
    "stop them and start again, which goes on from here, or look at disturbed numbers "
    "with --allow_busy"
)


class Busy(RuntimeError):
    """Others compute on this machine."""


def about() -> dict[str, Any]:
    """Returns processor, cores and devices of this machine.

    Names of processors are ambiguous, as `AMD EPYC` is in a virtual machine: their
    family, model and stepping, and the wide instructions that they have, stand beside.
    """
    try:
        text = (PROC / "cpuinfo").read_text().partition("\n\n")[0]
    except OSError:
        text = ""
    fields = dict(re.findall(r"^(?:cpu )?(.+?)\s*:[ \t]*(.*)$", text, re.M))
    has = fields.get("flags", fields.get("Features", "")).split()
    devices = jax.devices()
    return {
        "processor": provenance.processor(),
        **{x: int(fields[x]) for x in NUMBERS if fields.get(x, "").isdecimal()},
        "instructions": [name for name in INSTRUCTIONS if name in has],
        "cores": provenance.usable_cores(),
        "system": f"{platform.system()} {platform.machine()}",
        "backend": jax.default_backend(),
        "device": devices[0].device_kind,
        "devices": len(devices),
        "variables": {x: os.environ[x] for x in VARIABLES if x in os.environ},
    }


def slug(machine: dict[str, Any]) -> str:
    """Returns the name of a file about a machine, as `amd-epyc-26-2-1-2-cores`."""
    numbers = [machine[x] for x in NUMBERS if x in machine]
    parts = [machine["processor"], *numbers, machine["cores"], "cores"]
    parts += [machine["device"]] * (machine["backend"] != "cpu")
    name = "-".join(map(str, parts)).lower()
    return re.sub(r"[^a-z0-9]+", "-", re.sub(r"\((r|tm)\)", "", name)).strip("-")


def title(machine: dict[str, Any]) -> str:
    """Returns a line that tells machines apart, for tables."""
    numbers = [f"{name} {machine[name]}" for name in NUMBERS if name in machine]
    parts = [machine["processor"], *numbers, *machine["instructions"]]
    parts += [f"{machine['cores']} cores"]
    parts += [machine["device"]] * (machine["backend"] != "cpu")
    return ", ".join(parts)


def others() -> float | None:
    """Returns how many cores other processes use, in a second of sleep; None where that
    cannot be told.

    It is what the cores that this process may use do, without what this process does;
    threads that spin after their work are not others. What a hypervisor takes counts as
    theirs.
    """
    try:
        before, start = _others_seconds(), time.perf_counter()
        time.sleep(SECONDS)
        used = (_others_seconds() - before) / (time.perf_counter() - start)
    except OSError:  # no `/proc`
        return None
    return max(0.0, used)


def _others_seconds() -> float:
    """Returns the seconds that others have had on the cores of this process."""
    lines = map(str.split, (PROC / "stat").read_text().splitlines())
    cores = {f"cpu{core}" for core in os.sched_getaffinity(0)}
    total = 0
    for _, *ticks in (fields for fields in lines if fields[0] in cores):
        user, nice, system, _, _, irq, softirq, steal = map(int, ticks[:8])
        total += user + nice + system + irq + softirq + steal
    return total / os.sysconf("SC_CLK_TCK") - sum(os.times()[:4])


class Watch:
    """Looks whether others compute, and waits a little until they stop.

    Args:
      meter: see `others`.
      allow: whether they may.

    Attributes:
      most: cores that others used, at most, so far.
    """

    def __init__(
        self, meter: Callable[[], float | None] = others, allow: bool = False
    ) -> None:
        self.meter, self.allow = meter, allow
        self.most = 0.0

    @property
    def busy(self) -> bool:
        """Whether other processes have disturbed the measurement."""
        return self.most > LIMIT

    def quiet(self) -> bool:
        """Returns whether the machine is idle, or may be busy."""
        used = self.meter() or 0.0
        if used > LIMIT and not self.allow:
            return False
        self.most = max(self.most, used)
        return True

    def wait(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Waits until the machine is idle.

        Raises:
          Busy: it is not, for `PATIENCE` seconds.
        """
        deadline, waits = clock() + PATIENCE, False
        while not self.quiet():
            if clock() > deadline:
                used, cores = self.meter() or 0.0, provenance.usable_cores()
                raise Busy(
                    f"machine: other processes use {used:.2f} of {cores} cores, at "
                    f"most {LIMIT} accepted; {WAY_OUT}"
                )
            if not waits:
                waits = True
                print("waits for other processes to stop", file=sys.stderr)
