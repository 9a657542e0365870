"""A convolution with bias and perhaps ReLU as one operation, for CPUs.

JAX sees an operation that stands for its own jaxpr, of `conv_general_dilated`, a sum
and a maximum. The analysis of splitting follows that jaxpr, gradients are its
gradients, and it is what exported files and accelerators are given. Only where a CPU
runs it in this process, see `lowering`, is it computed in one go: bias and ReLU are
applied while the outputs of the convolution are at hand, not in a pass over memory.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend import core
from jax.interpreters import ad, batching, mlir

NAME = "coded_jax_convolution_layer"
"""Names the primitive, whose parameter `call_jaxpr` holds what it stands for."""

LAYOUT = ("NHWC", "HWIO", "NHWC")


class Layer(NamedTuple):
    """Parameters of a layer: hashable, as those of a primitive must be.

    JAX 0.7 wants weak references to parameters that are callable; a tuple has none.

    Attributes:
      relu: whether negative outputs become zero.
      strides: of the windows.
      padding: `(before, behind)` rows, and columns; or a name, as for
        `jax.lax.conv_general_dilated`.
      dilation: of the kernel.
      groups: of channels that are convolved by themselves.
    """

    relu: bool
    strides: tuple[int, ...] = (1, 1)
    padding: str | tuple[tuple[int, int], ...] = "SAME"
    dilation: tuple[int, ...] = (1, 1)
    groups: int = 1

    def convolve(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        """Computes the convolution alone."""
        return lax.conv_general_dilated(
            x,
            kernel,
            self.strides,
            self.padding,
            rhs_dilation=self.dilation,
            dimension_numbers=LAYOUT,
            feature_group_count=self.groups,
        )

    def compute(self, x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
        """Computes what the operation stands for."""
        y = self.convolve(x, kernel) + bias[None, None, None]
        return jax.nn.relu(y) if self.relu else y


def convolution_layer(
    x: jax.Array,
    kernel: jax.Array,
    bias: jax.Array,
    layer: Layer,
) -> jax.Array:
    """Convolves, adds a bias, and perhaps applies ReLU.

    Args:
      x: `[B, h, w, C]`.
      kernel: `[q, q', C / groups, D]`, of `x`'s dtype.
      bias: `[D]`, of `x`'s dtype.
      layer: the other parameters.

    Returns:
      `[B, h', w', D]`.
    """
    operands = (x, kernel, bias)
    shapes = tuple(jax.ShapeDtypeStruct(a.shape, a.dtype) for a in operands)
    precision = jax.default_matmul_precision.value
    jaxpr = _jaxpr(layer, precision, jax.sharding.get_abstract_mesh(), *shapes)
    return layer_p.bind(*operands, layer=layer, call_jaxpr=jaxpr)


@functools.lru_cache(maxsize=256)
def _jaxpr(
    layer: Layer, precision: str | None, mesh: Any, *shapes: jax.ShapeDtypeStruct
) -> Any:
    """Returns the jaxpr of a layer, at this precision of products and on this mesh,
    which its types name."""
    del precision, mesh  # traced with
    return jax.make_jaxpr(layer.compute)(*shapes)


def convolution_of(call_jaxpr: Any) -> dict[str, Any]:
    """Returns the parameters of the convolution in what a layer stands for."""
    convolution, *_ = call_jaxpr.eqns
    assert convolution.primitive is lax.conv_general_dilated_p
    return convolution.params


def _evaluate(*operands: jax.Array, layer: Layer, **_: Any) -> jax.Array:
    """Computes it outside `jit`, as JAX does to find a NaN: step by step."""
    return layer.compute(*operands)


def _differentiate(
    primals: Sequence, tangents: Sequence, *, layer: Layer, **_
) -> tuple[jax.Array, jax.Array]:
    """Differentiates by the operands that have a tangent.

    The outputs tell where ReLU let them pass, so that those of the convolution alone,
    as large, need not be kept for the backward pass.
    """
    (x, kernel, bias), (dx, dkernel, dbias) = primals, tangents
    y = convolution_layer(x, kernel, bias, layer)
    terms = []
    if not isinstance(dx, ad.Zero):
        terms.append(layer.convolve(dx, kernel))
    if not isinstance(dkernel, ad.Zero):
        terms.append(layer.convolve(x, dkernel))
    if not isinstance(dbias, ad.Zero):
        terms.append(jnp.broadcast_to(dbias, y.shape))
    dy = functools.reduce(jnp.add, terms)
    return y, jnp.where(y > 0, dy, 0) if layer.relu else dy


def _batch(operands: Sequence, axes: Sequence, *, layer: Layer, **_) -> tuple:
    """Joins pieces and batch; other arguments have no such axis as a rule."""
    x, kernel, bias = operands
    if axes[1] is None and axes[2] is None:
        x = jnp.moveaxis(x, axes[0], 0)
        y = convolution_layer(x.reshape(-1, *x.shape[2:]), kernel, bias, layer)
        return y.reshape(*x.shape[:2], *y.shape[1:]), 0
    return jax.vmap(layer.compute, axes)(x, kernel, bias), 0


layer_p = core.Primitive(NAME)
layer_p.def_impl(_evaluate)
layer_p.def_abstract_eval(lambda *_, call_jaxpr, **__: call_jaxpr.out_avals[0])
ad.primitive_jvps[layer_p] = _differentiate
batching.primitive_batchers[layer_p] = _batch
lower_as_jaxpr = mlir.lower_fun(
    lambda *operands, layer, **_: layer.compute(*operands), multiple_results=False
)
mlir.register_lowering(layer_p, lower_as_jaxpr)
