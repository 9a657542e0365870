"""The choice of kernels, made where a JAX program is lowered for a CPU.

Programs stay what they are: whoever traces them, splits, counts and exports them, or
compiles them for an accelerator, sees `conv_general_dilated` and max pooling. Only
where JAX lowers a program to run it on a CPU, its rules for these are replaced:

    convolutions of float32     by oneDNN, see `library` and `convolution`
    gradients of max pooling    by elementwise operations, see `pooling`
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.interpreters import mlir

from coded_jax.checks import require
from coded_jax.cpu_kernels import library, pooling
from coded_jax.cpu_kernels.convolution import Convolution, Kind, describe

VARIABLE = "CODED_JAX_CPU_KERNELS"
CHOICES = ("auto", "xla")
_TARGET = "coded_jax_convolve"

log = logging.getLogger("coded_jax")

Rule = Callable[..., Any]  # (lowering context, values, **parameters) -> values


def install() -> None:
    """Lets JAX use this package's kernels for what it lowers for CPUs from now on.

    It does so for the whole process, and does nothing the second time. What has been
    compiled before stays as it is. Results are those of XLA's kernels up to rounding.
    The environment variable `CODED_JAX_CPU_KERNELS=xla` prevents it.

    Raises:
      ValueError: the variable has another value than `auto` and `xla`.
    """
    choice = os.environ.get(VARIABLE, "auto")
    require(VARIABLE, choice, choice in CHOICES, f"one of {list(CHOICES)}")
    if choice == "auto":
        _install()


@functools.cache
def _install() -> None:
    for primitive, rule in (
        (lax.conv_general_dilated_p, _convolution),
        (lax.select_and_scatter_add_p, _pooling_gradient),
    ):
        usual = _rule_of(primitive)
        if usual is not None:
            own = functools.partial(rule, usual)
            mlir.register_lowering(primitive, own, platform="cpu")


def convolutions() -> str:
    """Returns which kernels compute convolutions on CPUs: `oneDNN 3.2.0` or `XLA`."""
    installed = _install.cache_info().currsize
    onednn = _onednn() if installed else None
    if onednn is None:
        return "XLA"
    onednn.coded_jax_onednn_version.restype = library.ctypes.c_char_p
    return f"oneDNN {onednn.coded_jax_onednn_version().decode()}"


def _rule_of(primitive: Any) -> Rule | None:
    """Returns JAX's rule for a primitive on CPUs; None where it cannot be found."""
    try:
        rules = mlir._platform_specific_lowerings["cpu"]
        entry = rules.get(primitive) or mlir._lowerings[primitive]
    except (AttributeError, KeyError):
        log.warning(
            "JAX %s hides its lowering rules: XLA's kernels run", jax.__version__
        )
        return None
    return getattr(entry, "rule", entry)


def _convolution(usual: Rule, ctx: Any, lhs: Any, rhs: Any, **p: Any) -> Any:
    """Lowers `conv_general_dilated` to a call of oneDNN, or else as is usual."""
    shapes = [aval.shape for aval in (*ctx.avals_in, *ctx.avals_out)]
    floats = all(a.dtype == jnp.float32 for a in (*ctx.avals_in, *ctx.avals_out))
    sizes = [size for shape in shapes for size in shape]
    known = all(isinstance(size, int) for size in sizes)  # not in exported files
    convolution = None
    if floats and known and _runs_here(ctx):
        convolution = describe(*shapes, p)
    if convolution is None or not _accepted(convolution):
        return usual(ctx, lhs, rhs, **p)
    if convolution.kind == Kind.IMAGE_GRADIENT:
        rows_and_columns = p["dimension_numbers"].rhs_spec[2:]
        reverse = mlir.lower_fun(
            lambda x: lax.rev(x, rows_and_columns), multiple_results=False
        )
        inner = ctx.replace(avals_in=ctx.avals_in[1:], avals_out=ctx.avals_in[1:])
        (rhs,) = reverse(inner, rhs)
    attributes = {
        name: np.array(numbers, np.int64)
        for name, numbers in convolution.attributes().items()
    }
    call = jax.ffi.ffi_lowering(_TARGET)
    return call(ctx, lhs, rhs, kind=np.int64(convolution.kind), **attributes)


def _pooling_gradient(
    usual: Rule, ctx: Any, source: Any, operand: Any, **p: Any
) -> Any:
    """Lowers the gradient of a max pooling elementwise, or else as is usual."""
    window = p["window_dimensions"]
    serves = pooling.is_elementwise(window, ctx.avals_in[1])
    if p["select_prim"] is not lax.ge_p or not serves:
        return usual(ctx, source, operand, **p)

    def gradient(source: jax.Array, operand: jax.Array) -> jax.Array:
        return pooling.max_gradient(
            source, operand, window, p["window_strides"], p["padding"]
        )

    lowered = mlir.lower_fun(gradient, multiple_results=False)
    return lowered(ctx, source, operand)


def _runs_here(ctx: Any) -> bool:
    """Returns whether a program is compiled for this process, and each device computes
    its own part: the compiler cannot divide a custom call among devices."""
    module = ctx.module_context
    if module.lowering_parameters.for_export or list(module.platforms) != ["cpu"]:
        return False
    axes = module.axis_context
    if hasattr(axes, "manual_axes"):  # in a shard_map
        return set(axes.manual_axes) == set(axes.mesh.axis_names)
    return getattr(axes, "num_devices", 1) == 1


@functools.cache
def _accepted(convolution: Convolution) -> bool:
    """Returns whether oneDNN is here and has fast code for a convolution."""
    onednn = _onednn()
    if onednn is None:
        return False
    numbers = [n for values in convolution.attributes().values() for n in values]
    array = np.array(numbers, np.int64)
    pointer = array.ctypes.data_as(library.ctypes.POINTER(library.ctypes.c_int64))
    kernel_axes = len(convolution.kernel.sizes)
    return bool(onednn.coded_jax_accepts(int(convolution.kind), pointer, kernel_axes))


@functools.cache
def _onednn() -> Any:
    """Loads oneDNN's kernels, once; None, and a line that says why, without them."""
    try:
        onednn = library.load(_folder())
    except library.Unavailable as reason:
        log.warning("convolutions: XLA's kernels run, which are slower (%s)", reason)
        return None
    capsule = jax.ffi.pycapsule(onednn.coded_jax_convolve)
    jax.ffi.register_ffi_target(_TARGET, capsule, platform="cpu")
    return onednn


def _folder() -> Path:
    """Returns the folder of compiled programs, see `startup.keep_compilations`."""
    folder = jax.config.jax_compilation_cache_dir or "~/.cache/coded_jax"
    return Path(folder).expanduser()
