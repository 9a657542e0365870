"""Receptive fields, read off the jaxpr of a convolutional function.

An operation with kernel `q`, dilation `d`, stride `s` and low padding `p` maps the
output interval `[a, b)` to the input interval `[a*s - p, (b-1)*s - p + (q-1)*d + 1)`.
Composing these maps along the jaxpr gives the interval of the image that an interval
of the features depends on. `rules` holds the map of every primitive; one that has none,
mixes positions or tells them apart is refused by name.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from coded_jax.checks import first_line
from coded_jax.splitting.flattening import BATCH, trace_flat
from coded_jax.splitting.jaxpr_constants import trace_constants, trace_of
from coded_jax.splitting.resizes import Rearranged, Weights
from coded_jax.splitting.rules import ALIGNED, LOOPS, through_features
from coded_jax.splitting.traces import (
    Constant,
    Feature,
    Fields,
    Operands,
    Refusal,
    digest_of,
    params_without_sizes,
)
from coded_jax.splitting.windows import ELEMENTWISE
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
    weights: tuple[Weights, ...]

    def differs_from(self, other: Analysis) -> str | None:
        """Returns the first operation that differs, None if the functions are alike."""
        if self.digest == other.digest:
            same = map(Weights.same, self.weights, other.weights)
            return None if all(same) else "'dot_general' of a resize"
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
        origin, own = next(t for t in operands if isinstance(t, Feature)), feature.own
        feature = dataclasses.replace(feature, layout=None, own=None)
        if isinstance(own, Rearranged):
            digest = origin.digest
            if own.resize:
                weights[own.along].append(own.resize.weights)
                digest += digest_of("resize", own.along, own.resize.digest)
                operations.append((f"{name!r}{where}", digest))
            before = origin.layout or range(len(own.order))
            layout = tuple(before[axis] for axis in own.order)
            layout = None if layout == (*sorted(layout),) else layout
            feature = dataclasses.replace(feature, layout=layout)
            digests = [digest]
        else:
            digests = _digests(eqn, operands, feature, own, image_shape)
            operations += [(f"{name!r}{where}", digest) for digest in digests]
        for v, digest in zip(eqn.outvars, digests, strict=True):
            traces[v] = dataclasses.replace(feature, digest=digest)
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


def _digests(
    eqn: Any,
    operands: Operands,
    feature: Feature,
    own: Any,
    image_shape: tuple[int, int, int],
) -> list[int]:
    """Returns the digest of each result of an equation; arguments as of `Feature`."""
    name, features = eqn.primitive.name, [t for t in operands if isinstance(t, Feature)]
    constants, sizes = [t.digest for t in operands if isinstance(t, Constant)], []
    if own is not None:
        constants = own
    elif name not in ELEMENTWISE:  # where constants have the features' shape
        # So have those of `ALIGNED`, but along the channels.
        same = set(features[0].axes) if name in ALIGNED else set()
        sizes = [
            [size for axis, size in enumerate(v.aval.shape) if axis not in same]
            for v, t in zip(eqn.invars, operands, strict=True)
            if isinstance(t, Constant)
        ]
    common = (
        params_without_sizes(eqn.params),
        feature.axes,
        feature.fields,
        sizes,
        constants,
        [isinstance(t, Feature) for t in operands],
        [(t.digest, t.layout) for t in features],
    )
    digests = []
    for i, v in enumerate(eqn.outvars):
        shape = v.aval.shape
        channels = [n for axis, n in enumerate(shape) if axis not in feature.axes]
        # Pieces are shorter by multiples of the stride; so must all layers be.
        ends = [
            shape[axis] * field.stride - size
            for axis, field, size in zip(
                feature.axes[1:], feature.fields, image_shape[:2], strict=True
            )
        ]
        digests.append(digest_of(name, i, common, channels, ends))
    return digests
