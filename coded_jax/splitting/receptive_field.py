"""Receptive fields, read off the jaxpr of a convolutional function.

An operation with kernel `q`, dilation `d`, stride `s` and low padding `p` maps the
output interval `[a, b)` to the input interval `[a*s - p, (b-1)*s - p + (q-1)*d + 1)`.
Composing these maps along the jaxpr gives the interval of the image that an interval
of the features depends on. `rules` and `window_rules` hold the map of every primitive;
one that has none, mixes positions or tells them apart is refused by name.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from coded_jax.checks import first_line
from coded_jax.splitting.constants import (
    ELEMENTWISE,
    params_without_sizes,
    through_constants,
)
from coded_jax.splitting.flattening import BATCH, Flat, trace_flat
from coded_jax.splitting.resizes import Weights, resize_of, same_weights
from coded_jax.splitting.rules import ALIGNED, LOOPS, through_features
from coded_jax.splitting.traces import (
    Constant,
    Feature,
    Fields,
    Operands,
    Refusal,
    digest_of,
    trace_constant,
)
from coded_jax.splitting.window_rules import index_digest
from coded_jax.types import PyTree

WAY_OUT = "move it to the head, or end f_conv before it"
WAY_OUT_OF_PLATFORMS = (
    "or, if all platforms compute the same, use splitting.platform_specialised"
)


class Analysis(NamedTuple):
    """The analysis of `f_conv` for images of one size.

    Attributes:
      fields: receptive field along rows and columns.
      features: shape of the features of an image, `(M*, M'*, D)`.
      digest: equal for two image sizes if all that leads to the result is the same but
        for the size: operations, windows, padding at either border, constants.
      operations: name and digest of every operation, in order.
      weights: of resizes, those along rows first, see `resizes.Resize`.
    """

    fields: Fields
    features: tuple[int, int, int]
    digest: int
    operations: tuple[tuple[str, int], ...]
    weights: tuple[Weights, ...] = ()

    def differs_from(self, other: Analysis) -> str | None:
        """Returns the first operation that differs, None if the functions are alike."""
        if self.digest == other.digest:
            same = same_weights(self.weights, other.weights)
            return None if same else "'dot_general' of a resize"
        for pair in itertools.zip_longest(self.operations, other.operations):
            if pair[0] != pair[1]:
                return (pair[0] or pair[1])[0]
        return "that makes the result"  # the same ones, but another's result


def analyse(
    f_conv: Callable[[PyTree, jax.Array], jax.Array],
    variables: PyTree,
    image_shape: tuple[int, int, int],
) -> Analysis:
    """Analyses `f_conv` for images of one size.

    Args:
      f_conv: `(variables, [B, H, W, C]) -> [B, M*, M'*, D]`.
      variables: arrays or shapes (`jax.ShapeDtypeStruct`); only shapes are looked at.
      image_shape: `(H, W, C)`.

    Raises:
      ValueError: `f_conv` holds an operation that mixes positions, or that cannot be
        analysed; the message names it. An error of `f_conv` itself is its cause.
    """
    image = jax.ShapeDtypeStruct((BATCH, *image_shape), "float32")
    try:
        flat = trace_flat(f_conv, variables, image, for_analysis=True)
    except Exception as error:
        raise ValueError(
            f"f_conv: fails for images {image_shape}: {first_line(error)}"
        ) from error
    traces = trace_constants(flat)
    traces[flat.image] = Feature((0, 1, 2))
    operations, weights = [], ([], [])
    for eqn in flat.dynamic:
        operands = [trace_of(atom, traces) for atom in eqn.invars]
        name, scope = eqn.primitive.name, str(eqn.source_info.name_stack)
        where = f" in {scope!r}" if scope else ""
        try:
            feature = through_features(eqn, operands)
        except Refusal as why:
            types = ", ".join(v.aval.str_short() for v in eqn.invars)
            way_out = f"unroll it, {WAY_OUT}" if name in LOOPS else WAY_OUT
            if "platform_dependent" in scope:
                way_out += f", {WAY_OUT_OF_PLATFORMS}"
            operation = f"{name!r} of {types}{where}"
            text = f"f_conv: operation {operation} {why}: {way_out}"
            raise ValueError(text) from None
        origin = next(t for t in operands if isinstance(t, Feature))
        if name == "transpose":
            layout = origin.transposed(eqn.params["permutation"])
            traced = [dataclasses.replace(feature, digest=origin.digest, layout=layout)]
        elif name == "dot_general" and (resize := resize_of(eqn, operands)):
            # Rows and columns may be resized in either order, which is chosen by their
            # sizes. So digests are added, and where the axes are counts as a
            # transposition.
            axis, shape = origin.axes.index(resize.axis), eqn.outvars[0].aval.shape
            size = _relative_sizes(shape, feature, image_shape)[axis - 1]
            own = digest_of("resize", axis, size, resize.digest)
            operations.append((f"{name!r}{where}", own))
            weights[axis - 1].append(resize.weights)
            digest, layout = origin.digest + own, origin.transposed(resize.order)
            traced = [dataclasses.replace(feature, digest=digest, layout=layout)]
        else:
            traced = []
            for i in range(len(eqn.outvars)):
                digest = _digest(eqn, i, operands, feature, image_shape)
                operations.append((f"{name!r}{where}", digest))
                traced.append(dataclasses.replace(feature, digest=digest))
        traces.update(zip(eqn.outvars, traced, strict=True))
    shapes = [v.aval.shape for v in flat.results]
    if len(shapes) != 1 or len(shapes[0]) != 4:
        raise ValueError(
            f"f_conv: results of shapes {shapes} for 2 images, one [B, rows, columns, "
            f"channels] accepted"
        )
    out, (_, rows, columns, depth) = trace_of(flat.results[0], traces), shapes[0]
    if not isinstance(out, Feature):
        raise ValueError("f_conv: its result does not depend on the image")
    if out.axes != (0, 1, 2):
        raise ValueError(
            f"f_conv: its result {shapes[0]} has batch, rows and columns on axes "
            f"{out.axes}; accepted is [B, rows, columns, channels]: transpose it"
        )
    return Analysis(
        fields=out.fields,
        features=(rows, columns, depth),
        digest=digest_of(out.digest, out.layout),
        operations=tuple(operations),
        weights=(*weights[0], *weights[1]),
    )


def _relative_sizes(
    shape: tuple[int, ...], feature: Feature, image_shape: tuple[int, int, int]
) -> list[Any]:
    """Returns rows and columns of a feature beyond those of the image over its stride.

    Pieces are shorter by multiples of the stride; so must all layers be.
    """
    return [
        shape[axis] * field.stride - size
        for axis, field, size in zip(
            feature.axes[1:], feature.fields, image_shape[:2], strict=True
        )
    ]


def _digest(
    eqn: Any,
    index: int,
    operands: Operands,
    feature: Feature,
    image_shape: tuple[int, int, int],
) -> int:
    """Returns the digest of a result, number `index` of an equation."""
    name, shape = eqn.primitive.name, eqn.outvars[index].aval.shape
    digests, others = [t.digest for t in operands], []
    if name == "gather" and isinstance(operands[1], Constant):
        digests[1] = index_digest(operands[1])
    elif name not in ELEMENTWISE:  # where constants have the features' shape
        # So have those of `ALIGNED`, but along the channels.
        axes = next(t.axes for t in operands if isinstance(t, Feature))
        same = set(axes) if name in ALIGNED else set()
        others = [
            [size for axis, size in enumerate(v.aval.shape) if axis not in same]
            for v, t in zip(eqn.invars, operands, strict=True)
            if isinstance(t, Constant)
        ]
    return digest_of(
        name,
        index,
        params_without_sizes(eqn.params),
        [size for axis, size in enumerate(shape) if axis not in feature.axes],
        _relative_sizes(shape, feature, image_shape),
        feature.axes,
        feature.fields,
        others,
        digests,
        [t.layout for t in operands if isinstance(t, Feature)],
    )


def trace_constants(flat: Flat) -> dict[Any, Any]:
    """Returns the traces of what does not depend on the image, by its variable."""
    traces: dict[Any, Any] = {
        v: trace_constant(v.aval, i) for i, v in enumerate(flat.weights)
    }
    constants = zip(flat.closed.jaxpr.constvars, flat.closed.consts, strict=True)
    traces |= {v: trace_constant(value) for v, value in constants}
    for eqn in flat.constant:
        operands = [trace_of(atom, traces) for atom in eqn.invars]
        outputs = through_constants(eqn, operands)
        traces.update(zip(eqn.outvars, outputs, strict=True))
    return traces


def trace_of(atom: Any, traces: dict[Any, Any]) -> Any:
    """Returns the trace of a variable or of a literal."""
    return trace_constant(atom.val) if hasattr(atom, "val") else traces[atom]
