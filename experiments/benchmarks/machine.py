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
VARIABLES = ("XLA_FLAGS", "OMP_NUM_THREADS", "OMP_WAIT_POLICY", "NPROC", "LD_PRELOAD")

WAY_OUT = (
    "stop them and start again, which goes on from here, or look at disturbed numbers "
    "with --allow_busy"
)

Meter = Callable[[], float | None]
"""Returns how many cores other processes use; None where that cannot be told."""


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
    fields = dict(re.findall(r"^(.+?)\s*:[ \t]*(.*)$", text, re.M))
    has = fields.get("flags", fields.get("Features", "")).split()
    devices = jax.devices()
    return {
        "processor": provenance.processor(),
        **{
            name.split()[-1]: int(fields[name])
            for name in ("cpu family", "model", "stepping")
            if fields.get(name, "").isdecimal()
        },
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
    numbers = [machine[x] for x in ("family", "model", "stepping") if x in machine]
    parts = [machine["processor"], *numbers, machine["cores"], "cores"]
    if machine["backend"] != "cpu":
        parts.append(machine["device"])
    name = "-".join(map(str, parts)).lower()
    return re.sub(r"[^a-z0-9]+", "-", re.sub(r"\((r|tm)\)", "", name)).strip("-")


def title(machine: dict[str, Any]) -> str:
    """Returns a line that tells machines apart, for tables."""
    numbers = [
        f"{name} {machine[name]}"
        for name in ("family", "model", "stepping")
        if name in machine
    ]
    parts = [machine["processor"], *numbers, *machine["instructions"]]
    cores = f"{machine['cores']} cores"
    device = [machine["device"]] if machine["backend"] != "cpu" else []
    return ", ".join([*parts, cores, *device])


def others() -> float | None:
    """Returns how many cores other processes use, in a second of sleep.

    It is what the cores that this process may use do, without what this process and its
    children do; threads that spin after their work are not others. What a hypervisor
    takes counts as theirs. Without `/proc` it is the load average, which tells nothing
    once this process has computed; on Windows None.
    """
    try:
        before = _busy_seconds(), time.perf_counter()
        time.sleep(SECONDS)
        after = _busy_seconds(), time.perf_counter()
    except OSError:
        return os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return max(0.0, (after[0] - before[0]) / (after[1] - before[1]))


def _busy_seconds() -> float:
    """Returns the seconds that others have had on the cores of this process."""
    cores = os.sched_getaffinity(0)
    total = 0
    for name, *ticks in map(str.split, (PROC / "stat").read_text().splitlines()):
        if re.fullmatch(r"cpu\d+", name) and int(name[3:]) in cores:
            user, nice, system, _, _, irq, softirq, steal = map(int, ticks[:8])
            total += user + nice + system + irq + softirq + steal
    return (total - _own_ticks()) / os.sysconf("SC_CLK_TCK")


def _own_ticks() -> int:
    """Returns the ticks of this process, its children, theirs and so on."""
    parents, ticks = {}, {}
    for path in PROC.glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended
        pid = int(path.parent.name)
        parents[pid] = int(fields[1])
        # Those of children that have ended count from when their parent was told.
        ticks[pid] = sum(map(int, fields[11:15]))
    own = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in own} - own:
        own |= more
    return sum(ticks.get(pid, 0) for pid in own)


class Watch:
    """Looks whether others compute, and waits a little until they stop.

    Attributes:
      most: cores that others used, at most, so far.
    """

    def __init__(self, meter: Meter = others, allow: bool = False) -> None:
        self.meter, self.allow = meter, allow
        self.most = 0.0

    @property
    def busy(self) -> bool:
        """Returns whether other processes have disturbed the measurement."""
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
