"""Receptive fields, read off the jaxpr of a convolutional function.

An operation with kernel `q`, dilation `d`, stride `s` and low padding `p` maps the
output interval `[a, b)` to the input interval `[a*s - p, (b-1)*s - p + (q-1)*d + 1)`.
Composing these maps along the jaxpr gives the interval of the image that an interval
of the features depends on, for any function built of convolutions, pooling and
elementwise operations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax

from coded_jax.types import PyTree

ELEMENTWISE = frozenset(
    "abs add add_any and cbrt ceil clamp convert_element_type copy cos div eq erf erfc "
    "exp exp2 expm1 floor ge gt integer_pow is_finite le log log1p logistic lt max min "
    "mul ne neg not or pow rem round rsqrt select_n sign sin sqrt square "
    "stop_gradient sub tan tanh xor".split()
)
POOLING = frozenset(
    "reduce_window reduce_window_max reduce_window_min reduce_window_sum".split()
)
CALLS = {  # primitive -> the parameter that holds its jaxpr
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "checkpoint": "jaxpr",
    "remat2": "jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "custom_vjp_call_jaxpr": "fun_jaxpr",
}


class Field(NamedTuple):
    """Receptive field along one axis: outputs `[a, b)` need `[a*s+low, (b-1)*s+high)`.

    Attributes:
      stride: pixels of the image between neighbouring features, `s`.
      low: first pixel that feature 0 needs; negative where it reaches into padding.
      high: one past the last pixel that feature 0 needs.
    """

    stride: int = 1
    low: int = 0
    high: int = 1

    def through(self, kernel: int, stride: int, dilation: int, padding: int) -> Field:
        """The field after one more windowed operation."""
        reach = (kernel - 1) * dilation
        return Field(
            stride=self.stride * stride,
            low=self.low - padding * self.stride,
            high=self.high + (reach - padding) * self.stride,
        )

    def window(self, a: int, b: int) -> tuple[int, int]:
        """The interval of the image that features `[a, b)` need, padding included."""
        return a * self.stride + self.low, (b - 1) * self.stride + self.high


Fields = tuple[Field, Field]  # rows, columns
Varying = frozenset[int]  # axes along which a constant may vary
Trace = Fields | Varying


def receptive_field(
    f_conv: Callable[[PyTree, jax.Array], jax.Array],
    variables: PyTree,
    image_shape: tuple[int, int, int],
) -> Fields:
    """Receptive field of `f_conv` along rows and columns.

    Args:
      f_conv: `(variables, [B, H, W, C]) -> [B, M*, M'*, D]`.
      variables: arrays or `jax.ShapeDtypeStruct`s; only shapes are looked at.
      image_shape: `(H, W, C)`.

    Raises:
      ValueError: `f_conv` holds an operation that mixes positions, or that cannot be
        analysed; the message names it.
    """
    image = jax.ShapeDtypeStruct((1, *image_shape), "float32")
    closed = jax.make_jaxpr(f_conv)(variables, image)
    constants = [_constant(v.aval.shape) for v in closed.jaxpr.invars[:-1]]
    (out,) = _walk(closed.jaxpr, [*constants, (Field(), Field())])
    if isinstance(out, frozenset):
        raise ValueError("f_conv: its result does not depend on the image")
    return out


def _constant(shape: tuple[int, ...]) -> Varying:
    return frozenset(axis for axis, size in enumerate(shape) if size > 1)


def _walk(jaxpr: Any, inputs: list[Trace]) -> list[Trace]:
    known: dict[Any, Trace] = dict(zip(jaxpr.invars, inputs, strict=True))
    known.update((v, _constant(v.aval.shape)) for v in jaxpr.constvars)

    def read(atom: Any) -> Trace:
        return (
            _constant(atom.val.shape if hasattr(atom.val, "shape") else ())
            if (hasattr(atom, "val"))
            else known[atom]
        )

    for eqn in jaxpr.eqns:
        traces = [read(atom) for atom in eqn.invars]
        name = eqn.primitive.name
        if name in CALLS:
            inner = eqn.params[CALLS[name]]
            outputs = _walk(getattr(inner, "jaxpr", inner), traces)
        elif name == "cond" and eqn.params.get("branches_platforms"):
            # `platform_dependent`: the branches agree, and the last is the default.
            outputs = _walk(eqn.params["branches"][-1].jaxpr, traces[1:])
        elif all(isinstance(t, frozenset) for t in traces):
            outputs = [_through_constant(eqn, traces, v) for v in eqn.outvars]
        else:
            outputs = [_through(eqn, traces)]
        known.update(zip(eqn.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _through_constant(eqn: Any, traces: list[Any], out: Any) -> Varying:
    name, shape = eqn.primitive.name, out.aval.shape
    if name == "broadcast_in_dim":
        return frozenset(eqn.params["broadcast_dimensions"][a] for a in traces[0])
    if name in ("reshape", "squeeze"):
        before, after = _long_axes(eqn.invars[0].aval.shape), _long_axes(shape)
        if [size for _, size in before] == [size for _, size in after]:
            axes = dict(zip([a for a, _ in before], [a for a, _ in after], strict=True))
            return frozenset(axes[a] for a in traces[0])
    # Pooling divides by the number of true pixels, which varies as the pooled sum does.
    if name in ELEMENTWISE or name in POOLING:
        return frozenset().union(*traces)
    return _constant(shape)


def _long_axes(shape: tuple[int, ...]) -> list[tuple[int, int]]:
    return [(axis, size) for axis, size in enumerate(shape) if size > 1]


def _through(eqn: Any, traces: list[Trace]) -> Trace:
    name, params = eqn.primitive.name, eqn.params
    fields = [t for t in traces if not isinstance(t, frozenset)]
    tells_apart = any(isinstance(t, frozenset) and t & {1, 2} for t in traces)
    if name == "conv_general_dilated" and not isinstance(traces[0], frozenset):
        numbers = params["dimension_numbers"]
        if len(fields) == 1 and (
            numbers.lhs_spec == numbers.out_spec == (0, 3, 1, 2)
            and set(params["lhs_dilation"]) == {1}
            and params["batch_group_count"] == 1
            and min(min(pads) for pads in params["padding"]) >= 0
        ):
            kernel = [eqn.invars[1].aval.shape[d] for d in numbers.rhs_spec[2:]]
            return _windowed(
                fields[0],
                kernel,
                params["window_strides"],
                params["rhs_dilation"],
                params["padding"],
            )
    if name in POOLING and len(fields) == 1:
        kernel, strides = params["window_dimensions"], params["window_strides"]
        if kernel[0] == kernel[3] == strides[0] == strides[3] == 1 and (
            set(params["base_dilation"]) == {1}
            and min(min(pads) for pads in params["padding"]) >= 0
        ):
            return _windowed(
                fields[0],
                kernel[1:3],
                strides[1:3],
                params["window_dilation"][1:3],
                params["padding"][1:3],
            )
    if name in ELEMENTWISE and not tells_apart:
        return _union(name, fields)
    if name == "concatenate" and params["dimension"] == 3 and not tells_apart:
        return _union(name, fields)
    raise ValueError(
        f"f_conv: operation {name!r} {[v.aval.str_short() for v in eqn.invars]} mixes "
        "or distinguishes positions, or is not supported; accepted are convolutions, "
        "pooling, elementwise operations and channel concatenation: move it to the head"
    )


def _windowed(
    fields: Fields,
    kernel: Iterable[int],
    strides: Iterable[int],
    dilation: Iterable[int],
    padding: Iterable[tuple[int, int]],
) -> Fields:
    rows, columns = (
        field.through(q, s, d, low)
        for field, q, s, d, (low, _) in zip(
            fields, kernel, strides, dilation, padding, strict=True
        )
    )
    return rows, columns


def _union(name: str, fields: list[Fields]) -> Fields:
    def one_axis(axis: list[Field]) -> Field:
        if len({f.stride for f in axis}) > 1:
            raise ValueError(f"f_conv: {name!r} joins branches of different strides")
        return Field(
            axis[0].stride, min(f.low for f in axis), max(f.high for f in axis)
        )

    rows, columns = zip(*fields, strict=True)
    return one_axis(list(rows)), one_axis(list(columns))
