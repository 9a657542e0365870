"""Devices, threads, memory and compilations, set up before JAX looks for devices."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import re
import tempfile
from pathlib import Path

import jax

from coded_jax.checks import require


def offer_cpu_devices(count: int) -> None:
    """Lets a CPU stand for `count` devices; accelerators are not affected.

    Raises:
      ValueError: `count` is not positive.
    """
    require("devices", count, count >= 1, "1 or more")
    jax.config.update("jax_num_cpu_devices", count)
    give_threads()


def give_threads() -> None:
    """Gives a CPU that stands for several devices two threads for each of them.

    XLA has as many threads as there are cores, and one that waits for a collective does
    nothing else: with 2 to 8 devices on 2 cores, training stood still (jax 0.10.2).
    It has an effect before the first device is looked for.
    """
    forced = re.search(r"host_platform_device_count=(\d+)", os.getenv("XLA_FLAGS", ""))
    count = max(jax.config.jax_num_cpu_devices, int(forced[1]) if forced else 1)
    if count > 1:
        os.environ.setdefault("NPROC", str(max(2 * count, os.cpu_count() or 1)))


def keep_memory() -> None:
    """Lets the C library keep what is freed, for the next step to use.

    XLA's CPU backend takes its temporary memory anew in every call, and glibc hands so
    large a piece back to the system each time: 15,000 page faults in a training step of
    the convolutional code, which took 65 ms instead of 47 (batch 64, 2 cores, jax
    0.10.2).
    """
    if platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(-8, 1)  # M_ARENA_MAX: those of other threads cannot keep large pieces
    mallopt(-4, 0)  # M_MMAP_MAX: no piece has a mapping of its own
    mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: nothing is handed back
    mallopt(-2, 2**26)  # M_TOP_PAD: taken in pieces of 64 MB


def run_one_by_one() -> None:
    """Lets a CPU end each program before the next is started.

    Else JAX starts a training step while the one before has still its temporary memory,
    and two or three of these live at once: a peak of 1,130 MiB instead of 655 (the
    convolutional code at batch 256, 2 cores, jax 0.10.2). Not for serving, where the
    host waits for the first of several devices. It has an effect before the first
    device is looked for.
    """
    jax.config.update("jax_cpu_enable_async_dispatch", False)


def hand_back_memory() -> None:
    """Hands back what is free, as once a program is compiled.

    The compiler's many small pieces lie between what stays. Where they are kept, the
    temporary memory of a training step finds no room among them and comes on top: a
    peak of 729 MiB, and of 621 with this (the convolutional code at batch 256, one by
    one; of ResNet-18's 1,363 and 1,200; 2 cores, jax 0.10.2). It takes some 20 ms.
    """
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def shorten_collections() -> None:
    """Leaves what is there now out of Python's garbage collections, from now on.

    In a process that serves, some 190,000 objects live as long as it does; a full
    collection, in which nothing else runs, takes 0.1 to 0.2 s to look at all of them.
    What was left out before and is garbage now, as a model that was replaced, is
    collected first.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def keep_compilations(folder: str | None) -> None:
    """Keeps compiled programs on the disk, for the next run of the same functions.

    Args:
      folder: made if need be; an empty string keeps nothing. If None, the folder that
        JAX is configured with, by `JAX_COMPILATION_CACHE_DIR` say, or else
        `~/.cache/coded_jax` where that can be written to.

    Raises:
      ValueError: it cannot be written to.
    """
    if folder == "":
        return
    if folder is not None or jax.config.jax_compilation_cache_dir is None:
        try:
            path = Path(folder or "~/.cache/coded_jax").expanduser().absolute()
            path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path):
                pass
        except (OSError, RuntimeError) as error:  # RuntimeError: there is no home
            if folder is None:
                return
            raise ValueError(
                f"compilation_cache: {folder!r} given, a folder that can be written to "
                f"or '' accepted ({error})"
            ) from error
        jax.config.update("jax_compilation_cache_dir", str(path))
    # Programs, too, that compile in less than JAX's threshold, as most do here, unless
    # the environment names one.
    for threshold in ("compile_time_secs", "entry_size_bytes"):
        name = f"jax_persistent_cache_min_{threshold}"
        if name.upper() not in os.environ:
            jax.config.update(name, 0)
