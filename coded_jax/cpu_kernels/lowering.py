"""The choice of kernels, made where a JAX program is lowered for a CPU.

Programs stay what they are: whoever traces them, splits, counts and exports them, or
compiles them for an accelerator, sees `conv_general_dilated` and max pooling. Only
where JAX lowers a program to run it on a CPU, its rules for these are replaced:

    convolutions of float32     by oneDNN, see `library` and `convolution`
    such with bias and ReLU     likewise, see `layer`
    gradients of max pooling    by `max_pooling.cc`; or elementwise, see `pooling`
    gradients of narrow layers  as products of few rows, see `_narrow_product`
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import logging
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.interpreters import mlir

from coded_jax.checks import require
from coded_jax.cpu_kernels import layer as fused
from coded_jax.cpu_kernels import library, pooling
from coded_jax.cpu_kernels.convolution import Convolution, Kind, describe

VARIABLE = "CODED_JAX_CPU_KERNELS"
CHOICES = ("auto", "xla")
NARROW = 64  # rows
ROUNDED = (
    (lax.Precision.DEFAULT, lax.Precision.DEFAULT),
    lax.DotAlgorithmPreset.BF16_BF16_F32,
)
"""Precisions that ask for products of bfloat16, summed in float32. Of the first JAX has
several names: `bfloat16`, `fastest`, `default`."""
_CONVOLVE, _LAYER = "coded_jax_convolve", "coded_jax_convolve_layer"
_POOL_GRADIENT = "coded_jax_max_pool_gradient"

log = logging.getLogger("coded_jax")
_loading = threading.Lock()

Rule = Callable[..., Any]  # (lowering context, values, **parameters) -> values


def install() -> None:
    """Lets JAX use this package's kernels for what it lowers for CPUs from now on.

    It does so for the whole process, and does nothing the second time. What has been
    compiled before stays as it is. Results are those of XLA's kernels up to rounding,
    which is to bfloat16 where a program asks for that, see `ROUNDED`.
    The environment variable `CODED_JAX_CPU_KERNELS=xla` prevents it.

    Raises:
      ValueError: the variable has another value than `auto` and `xla`.
    """
    choice = os.environ.get(VARIABLE, "auto")
    require(VARIABLE, choice, choice in CHOICES, f"one of {list(CHOICES)}")
    if choice == "auto":
        _install()


@functools.cache
def _install() -> bool:
    """Replaces JAX's rules, and returns whether they were found."""
    own = {
        lax.conv_general_dilated_p: _convolution,
        lax.select_and_scatter_add_p: _pooling_gradient,
        lax.dot_general_p: _narrow_product,
        fused.layer_p: _layer,
    }
    try:
        rules = mlir._platform_specific_lowerings["cpu"]
        entries = [rules.get(x) or mlir._lowerings[x] for x in own]
    except (AttributeError, KeyError):
        log.warning(
            "JAX %s hides its lowering rules: XLA's kernels run", jax.__version__
        )
        return False
    for (primitive, rule), entry in zip(own.items(), entries, strict=True):
        usual = getattr(entry, "rule", entry)
        bound = functools.partial(rule, usual)
        mlir.register_lowering(primitive, bound, platform="cpu")
    return True


def convolutions() -> str:
    """Returns the kernels of convolutions on CPUs: `oneDNN 3.2.0` or `XLA`."""
    installed = _install.cache_info().currsize and _install()
    kernels = _library() if installed else None
    if kernels is None:
        return "XLA"
    kernels.coded_jax_onednn_version.restype = ctypes.c_char_p
    return f"oneDNN {kernels.coded_jax_onednn_version().decode()}"


def _convolution(usual: Rule, ctx: Any, lhs: Any, rhs: Any, **p: Any) -> Any:
    """Lowers `conv_general_dilated` to a call of oneDNN, or else as is usual."""
    convolution = _describe(ctx, ctx.avals_in, p)
    if convolution is None:
        return usual(ctx, lhs, rhs, **p)
    if convolution.kind == Kind.IMAGE_GRADIENT:
        rows_and_columns = p["dimension_numbers"].rhs_spec[2:]
        reverse = mlir.lower_fun(
            lambda x: lax.rev(x, rows_and_columns), multiple_results=False
        )
        inner = ctx.replace(avals_in=ctx.avals_in[1:], avals_out=ctx.avals_in[1:])
        (rhs,) = reverse(inner, rhs)
    call = jax.ffi.ffi_lowering(_CONVOLVE)
    attributes = _attributes(convolution, p["precision"])
    return call(ctx, lhs, rhs, kind=np.int64(convolution.kind), **attributes)


def _layer(usual: Rule, ctx: Any, *operands: Any, layer: fused.Layer, **p: Any) -> Any:
    """Lowers a convolution with bias and ReLU to a call of oneDNN, or else in parts."""
    parameters = fused.convolution_of(p["call_jaxpr"])
    convolution = _describe(ctx, ctx.avals_in[:2], parameters)
    if convolution is None:
        return usual(ctx, *operands, layer=layer, **p)
    call = jax.ffi.ffi_lowering(_LAYER)
    attributes = _attributes(convolution, parameters["precision"])
    return call(ctx, *operands, relu=layer.relu, **attributes)


def _describe(ctx: Any, inputs: Sequence[Any], p: dict[str, Any]) -> Convolution | None:
    """Returns a convolution in oneDNN's terms, where oneDNN is to compute it."""
    arrays = (*inputs, *ctx.avals_out)
    if not (_are_floats(arrays) and _runs_here(ctx)):
        return None
    convolution = describe(*(array.shape for array in arrays), p)
    return convolution if convolution and _accepted(convolution) else None


def _attributes(convolution: Convolution, precision: Any) -> dict[str, Any]:
    """Returns the attributes of a custom call, but for the kind and the ReLU.

    JAX has no precision where none was asked for, and its `DEFAULT`, the fastest one,
    where it was told `bfloat16`. Convolutions in groups stay float32: depthwise ones
    have too few products for each number that would have to be rounded.
    """
    rounded = precision in ROUNDED and len(convolution.kernel.sizes) == 4
    bfloat16 = rounded and _accepted(convolution, bfloat16=True)
    return {"bfloat16": bfloat16, **_arrays(convolution.attributes())}


def _arrays(attributes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    return {name: np.array(values, np.int64) for name, values in attributes.items()}


def _pooling_gradient(usual: Rule, ctx: Any, gradient: Any, x: Any, **p: Any) -> Any:
    """Lowers the gradient of a max pooling, or of another pooling as is usual."""
    window, strides, padding = p["window_dimensions"], p["window_strides"], p["padding"]
    x_aval = ctx.avals_in[1]
    if p["select_prim"] is not lax.ge_p:
        return usual(ctx, gradient, x, **p)
    fits = pooling.is_of_rows_and_columns(window, strides, padding)
    here = fits and _are_floats(ctx.avals_in) and _runs_here(ctx)
    if here and _library() is not None:
        before = tuple(before for before, _ in padding[-3:-1])
        attributes = _arrays(
            {"window": window[-3:-1], "strides": strides[-3:-1], "padding": before}
        )

        def rule(gradient: jax.Array, x: jax.Array) -> jax.Array:
            # The library has one axis before rows, columns and channels.
            g, images = (a.reshape(-1, *a.shape[-3:]) for a in (gradient, x))
            result = jax.ShapeDtypeStruct(images.shape, images.dtype)
            call = jax.ffi.ffi_call(_POOL_GRADIENT, result)
            return call(g, images, **attributes).reshape(x.shape)

    elif pooling.is_elementwise(window, x_aval):
        rule = functools.partial(
            pooling.max_gradient, window=window, strides=strides, padding=padding
        )
    else:
        return usual(ctx, gradient, x, **p)
    return mlir.lower_fun(rule, multiple_results=False)(ctx, gradient, x)


def _narrow_product(usual: Rule, ctx: Any, lhs: Any, rhs: Any, **p: Any) -> Any:
    """Lowers `lhs' rhs`, with few rows or columns, as a product of few rows.

    That is the gradient of a dense layer by its weights. XLA makes one product of it
    and the transpose behind it, of whatever form: 7.0 ms for 24,576 inputs, 7 outputs
    and a batch of 128, and 0.4 ms as here (2 cores of an AMD EPYC, jax 0.10.2).
    """
    (contracted, batch), (result,) = p["dimension_numbers"], ctx.avals_out
    leading = all(tuple(axes) == tuple(range(len(axes))) for axes in contracted)
    pairs = zip(ctx.avals_in, contracted, strict=True)
    free = [array.ndim - len(axes) for array, axes in pairs]
    if not (leading and free == [1, 1] and not any(batch) and _runs_here(ctx)):
        return usual(ctx, lhs, rhs, **p)
    few, many = sorted(result.shape)
    if few > NARROW or many < 8 * few:
        return usual(ctx, lhs, rhs, **p)
    if result.shape[0] == few:
        apart = mlir.lower_fun(lax.optimization_barrier, multiple_results=False)
        inner = ctx.replace(avals_in=ctx.avals_out)
        return apart(inner, *usual(ctx, lhs, rhs, **p))

    def exchanged(lhs: jax.Array, rhs: jax.Array) -> jax.Array:
        return lax.dot_general_p.bind(rhs, lhs, **p).T

    return mlir.lower_fun(exchanged, multiple_results=False)(ctx, lhs, rhs)


def _are_floats(arrays: Iterable[Any]) -> bool:
    """Returns whether all arrays are float32, and their sizes numbers, as they are not
    where a batch is any."""
    return all(
        array.dtype == jnp.float32 and all(isinstance(n, int) for n in array.shape)
        for array in arrays
    )


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
def _accepted(convolution: Convolution, bfloat16: bool = False) -> bool:
    """Returns whether oneDNN is here and has fast code for a convolution."""
    kernels = _library()
    if kernels is None:
        return False
    numbers = [*itertools.chain(*convolution.attributes().values())]
    array = (ctypes.c_int64 * len(numbers))(*numbers)
    kind, axes = ctypes.c_int64(convolution.kind), len(convolution.kernel.sizes)
    return bool(kernels.coded_jax_accepts(kind, int(bfloat16), array, axes))


def _library() -> ctypes.CDLL | None:
    """Returns the kernels in C++; None, and once a line that says why, without them."""
    with _loading:  # programs may be lowered on several threads at once
        return _load()


@functools.cache
def _load() -> ctypes.CDLL | None:
    # Where compiled programs are kept, see `startup.keep_compilations`.
    folder = jax.config.jax_compilation_cache_dir
    if not folder or "://" in folder:  # no folder of this machine, as gs://bucket
        folder = "~/.cache/coded_jax"
    try:
        kernels = library.load_library(Path(folder).expanduser())
    except library.Unavailable as reason:
        log.warning("convolutions: XLA's kernels run, which are slower (%s)", reason)
        return None
    for name in (_CONVOLVE, _LAYER, _POOL_GRADIENT):
        capsule = jax.ffi.pycapsule(getattr(kernels, name))
        jax.ffi.register_ffi_target(name, capsule, platform="cpu")
    return kernels
