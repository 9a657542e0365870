"""The machine that a benchmark runs on, and what others do on it."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path
from typing import Any

import jax

from coded_jax.runs import provenance

PROC = Path("/proc")
INSTRUCTIONS = ("avx2", "avx512f", "avx512_bf16", "amx_tile", "asimd", "sve")
NUMBERS = ("family", "model", "stepping")
VARIABLES = ("XLA_FLAGS", "OMP_NUM_THREADS", "OMP_WAIT_POLICY", "NPROC", "LD_PRELOAD")


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


def others_seconds() -> float:
    """Returns the seconds that others have had, so far, on the cores of this process; 0
    where that cannot be told.

    It is what these cores have done without what this process has: threads that spin
    after their work are not others. What a hypervisor takes counts as theirs.
    """
    try:
        lines = [*map(str.split, (PROC / "stat").read_text().splitlines())]
    except OSError:
        return 0.0
    cores = {f"cpu{core}" for core in os.sched_getaffinity(0)}
    total = 0
    for _, *ticks in (fields for fields in lines if fields[0] in cores):
        user, nice, system, _, _, irq, softirq, steal = map(int, ticks[:8])
        total += user + nice + system + irq + softirq + steal
    return total / os.sysconf("SC_CLK_TCK") - sum(os.times()[:4])
