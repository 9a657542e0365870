"""Described devices: accelerators that programs are compiled for, and that need not be.

XLA compiles for a TPU or a GPU on any CPU. Programs for TPUs need libtpu (the `aot-tpu`
extra), programs for GPUs JAX's CUDA plugin (`aot-cuda`); no driver is asked for.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
from collections.abc import Iterator
from typing import Any

import jax

from coded_jax.aot.chips import CHIPS
from coded_jax.checks import first_line

VARIABLES = {
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # no TPU is used that another one could use
    "TPU_SKIP_MDS_QUERY": "1",  # else the metadata server of a cloud is asked
    "TPU_ACCELERATOR_TYPE": "none",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_MIN_LOG_LEVEL": "4",
    "TPU_STDERR_LOG_LEVEL": "4",
    "TF_CPP_MIN_LOG_LEVEL": "4",
}
"""Variables by which libtpu keeps still where there is no TPU."""

HOSTS = {"1x1": (1, 1, 1), "2x2": (2, 2, 1), "2x4": (2, 4, 1)}
"""Chips of one host of a v5e or v6e, by topology; larger ones have hosts of 2x2."""

COMPILERS = {
    "aot-tpu": ("libtpu",),
    "aot-cuda": ("jax_cuda12_plugin", "jax_cuda13_plugin"),
}
"""Modules, one of which has a compiler, by the extra that brings them."""

AXES = {"v5e": 2, "v6e": 2, "h100": 1}
"""Axes of the topology of a chip; three of those that are not named."""

# As XLA prints that of an H100 (its pull request 25919), without the runtime's version.
H100 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152
  shared_memory_per_core: 233472 threads_per_core_limit: 2048 core_count: 132
  fpus_per_core: 128 block_dim_limit_x: 2147483647 block_dim_limit_y: 65535
  block_dim_limit_z: 65535 memory_bandwidth: 3352320000000 l2_cache_size: 52428800
  clock_rate_ghz: 1.98 device_memory_size: 84929347584
  shared_memory_per_block_optin: 232448 cuda_compute_capability { major: 9 }
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 7 }
runtime_version { major: 12 minor: 8 patch: 0 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""

FORM = "v5e:2x4, v4:2x2x2, tpu7x:2x2x1, h100:8 and the like"


def describe(target: str) -> list[jax.Device]:
    """Returns the devices of a machine that is not at hand, to compile for.

    Devices that JAX has found already stay as they are (tried with those of a CPU).

    Args:
      target: a chip of `CHIPS` and how many there are: the topology of a TPU slice, as
        `v5e:2x4`, or a number of GPUs of one host, as `h100:8`.

    Raises:
      ValueError: there is no such chip, or the compiler knows no such topology.
      ImportError: the compiler is missing; says what brings it.
    """
    name, _, size = target.partition(":")
    is_size = re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", size)
    axes = size.count("x") + 1
    if name not in CHIPS or not is_size or axes != AXES.get(name, 3):
        raise ValueError(
            f"target: {target!r} given, one of {', '.join(CHIPS)} with its topology "
            f"accepted, as {FORM}"
        )
    extra = "aot-cuda" if name == "h100" else "aot-tpu"
    if not any(map(importlib.util.find_spec, COMPILERS[extra])):
        raise ImportError(
            f"target: {target!r} needs a compiler that is not installed: "
            f"pip install 'coded_jax[{extra}]'"
        )
    os.environ.update(VARIABLES | os.environ)
    from jax.experimental import topologies

    options: dict[str, Any] = {"platform": "tpu", "topology_name": target}
    if name == "h100":
        options = {"platform": "cuda", "target_config": H100, "topology": f"1x1x{size}"}
    if name == "v4":  # both cores as one device
        options["chip_config_name"] = "megacore"
    if size in HOSTS:
        options["chips_per_host_bounds"] = HOSTS[size]
    try:
        with _quiet():
            jax.devices()  # looks for plug-ins, that of CUDA among them
            return list(topologies.get_topology_desc(**options).devices)
    except Exception as error:  # of any kind: each compiler has its own
        raise ValueError(
            f"target: {target!r} given, a topology of {name} that its compiler knows "
            f"accepted ({first_line(error)})"
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the compilers' own notes on absent devices off the screen."""
    kept = os.dup(2)
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def compiler_options(device: jax.Device) -> dict[str, Any]:
    """Returns the options with which a program is compiled for a device.

    Without a GPU at hand XLA cannot try the tiles of Triton's products, and where it
    must choose them it may find none; so they are left to cuBLAS.
    """
    gpu = device.platform in ("gpu", "cuda")
    tried = not gpu or device.client in {x.client for x in jax.devices()}
    return {} if tried else {"xla_gpu_enable_triton_gemm": False}
