"""Time and memory of functions."""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax

PAUSE = 0.02  # s; threads that one job leaves spinning sleep before the next begins

Job = Callable[[int], object]
"""Makes a number of calls, and returns when the last has ended."""


class Prepared(NamedTuple):
    """A job that has been compiled.

    Attributes:
      job: does `steps` steps in every call.
      compile_seconds: what compiling it took; 0 where there is nothing to compile.
      steps: see `job`.
      program: the compiled function, where there is one.
    """

    job: Job
    compile_seconds: float = 0.0
    steps: int = 1
    program: Any = None


class Timing(NamedTuple):
    """Seconds of one call, over several rounds of a few calls.

    Attributes:
      median: over the rounds.
      quartiles: the first and the third.
      fastest: of the fastest round.
      rounds: how many there were.
      calls: in each round.
    """

    median: float
    quartiles: tuple[float, float]
    fastest: float
    rounds: int
    calls: int


def time_jobs(
    jobs: dict[str, Job], seconds: float, rounds: int = 7
) -> dict[str, Timing]:
    """Times jobs in turns, so that a disturbance of the machine meets all of them.

    Args:
      jobs: what is compared. Each must have been compiled before.
      seconds: to spend on each, about; a round has one call at least.
      rounds: how often each is timed, 2 or more. Only 3 times if calls turn out so
        slow that all rounds together take more than thrice the time planned.
    """
    calls, times = {}, {name: [] for name in jobs}
    for name, job in jobs.items():
        job(1)
        once = _seconds(job, 1)
        if once < seconds / rounds:  # then a disturbed call would mislead
            once = min(once, _seconds(job, 1), _seconds(job, 1))
        calls[name] = max(1, int(seconds / rounds / max(once, 1e-7)))
    deadline = time.perf_counter() + 3 * seconds * len(jobs)
    for i in range(rounds):
        if i >= 3 and time.perf_counter() > deadline:
            break
        for name in list(jobs) if i % 2 else reversed(jobs):
            time.sleep(PAUSE)
            if calls[name] > 1:
                jobs[name](1)  # wakes its threads
            times[name].append(_seconds(jobs[name], calls[name]) / calls[name])
    timings = {}
    for name, own in times.items():
        first, median, third = statistics.quantiles(own, n=4, method="inclusive")
        timings[name] = Timing(median, (first, third), min(own), len(own), calls[name])
    return timings


def _seconds(job: Job, calls: int) -> float:
    start = time.perf_counter()
    job(calls)
    return time.perf_counter() - start


def compiled(f: Callable, *args: Any, **static: Any) -> tuple[Callable, float]:
    """Compiles a jitted function, and returns it with the seconds that this took.

    Args:
      f: made by `jax.jit`.
      args: of one call.
      static: its static arguments, by name. They are not given again in calls.
    """
    start = time.perf_counter()
    program = f.lower(*args, **static).compile()
    return program, time.perf_counter() - start


def peak_bytes() -> int:
    """Returns the peak memory of the first device, or else of this process, so far."""
    stats = jax.devices()[0].memory_stats()
    if stats and "peak_bytes_in_use" in stats:
        return stats["peak_bytes_in_use"]
    try:
        status = Path("/proc/self/status").read_text()
        return int(re.findall(r"VmHWM:\s*(\d+) kB", status)[0]) * 1024
    except (OSError, IndexError):
        import resource  # not on Windows; that of a large parent, where it is larger

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
