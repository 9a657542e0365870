"""Receptive fields, read off the jaxpr of a convolutional function.

An operation with kernel `q`, dilation `d`, stride `s` and low padding `p` maps the
output interval `[a, b)` to the input interval `[a*s - p, (b-1)*s - p + (q-1)*d + 1)`.
Composing these maps along the jaxpr gives the interval of the image that an interval
of the features depends on. `rules` and `window_rules` hold the map of every primitive;
one that has none, mixes positions or tells them apart is refused by name.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from coded_jax.checks import first_line
from coded_jax.splitting.constants import (
    join_constants,
    params_without_sizes,
    through_constants,
)
from coded_jax.splitting.inlining import (
    CALLS,
    MAX_LENGTH,
    is_specialised,
    unrolled,
)
from coded_jax.splitting.resizes import Weights, resize_of, same_weights
from coded_jax.splitting.rules import (
    ALIGNED,
    ELEMENTWISE,
    UNCHANGED,
    Operands,
    join_features,
    through_features,
)
from coded_jax.splitting.traces import (
    Constant,
    Feature,
    Field,
    Fields,
    Refusal,
    Trace,
    digest_of,
    trace_constant,
)
from coded_jax.splitting.window_rules import index_digest
from coded_jax.types import PyTree

__all__ = ["Analysis", "Field", "Fields", "analyse", "receptive_field"]

OPAQUE = {
    "cond": "chooses between branches by the image",
    "scan": "is a loop",
    "while": "is a loop",
    "custom_linear_solve": "mixes positions",
    "fft": "mixes positions",
    "pure_callback": "calls code that cannot be looked into",
    "shard_map": "splits its operands itself",
}
LOOPS = frozenset({"scan", "while"})  # of `map` and `fori_loop`, too
WAY_OUT = "move it to the head, or end f_conv before it"
WAY_OUT_OF_PLATFORMS = (
    "or, if all platforms compute the same, use splitting.platform_specialised"
)


class Unsplittable(ValueError):
    """An operation that cannot be split.

    Attributes:
      operation: its name, operands and place in the network.
      reason: why, as `"is a loop"`.
    """

    def __init__(self, operation: str, reason: str, way_out: str) -> None:
        super().__init__(f"f_conv: operation {operation} {reason}: {way_out}")
        self.operation, self.reason = operation, reason


class Analysis(NamedTuple):
    """The analysis of `f_conv` for images of one size.

    Attributes:
      fields: receptive field along rows and columns.
      features: shape of the features of an image, `(M*, M'*, D)`.
      digest: equal for two image sizes if all that leads to the result is the same but
        for the size: operations, windows, padding at either border, constants.
      operations: name and digest of every operation, in order.
      weights: of resizes, those along rows first, see `resizes.Band`.
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
        pairs = itertools.zip_longest(self.operations, other.operations)
        for pair in pairs:
            if pair[0] != pair[1]:
                return (pair[0] or pair[1])[0]
        return "that makes the result"  # the same ones, but another's result


def receptive_field(
    f_conv: Callable[[PyTree, jax.Array], jax.Array],
    variables: PyTree,
    image_shape: tuple[int, int, int],
) -> Fields:
    """Returns the receptive field of `f_conv` along rows and columns.

    Args:
      f_conv: `(variables, [B, H, W, C]) -> [B, M*, M'*, D]`.
      variables: arrays or shapes (`jax.ShapeDtypeStruct`); only shapes are looked at.
      image_shape: `(H, W, C)`.

    Raises:
      ValueError: `f_conv` holds an operation that mixes positions, or that cannot be
        analysed; the message names it.
    """
    return analyse(f_conv, variables, image_shape).fields


def analyse(
    f_conv: Callable[[PyTree, jax.Array], jax.Array],
    variables: PyTree,
    image_shape: tuple[int, int, int],
) -> Analysis:
    """Analyses `f_conv` for images of one size.

    Args:
      f_conv: as for `receptive_field`.
      variables: as for `receptive_field`.
      image_shape: `(H, W, C)`.

    Raises:
      ValueError: as for `receptive_field`; an error of `f_conv` itself is its cause.
    """
    # Two images: an axis of size 1 could not be told from others.
    image = jax.ShapeDtypeStruct((2, *image_shape), "float32")
    try:
        closed = jax.make_jaxpr(f_conv)(variables, image)
    except Exception as error:
        raise ValueError(
            f"f_conv: fails for images {image_shape}: {first_line(error)}"
        ) from error
    *weights, _ = closed.jaxpr.invars
    inputs: list[Trace] = [trace_constant(v.aval, i) for i, v in enumerate(weights)]
    tracer = Tracer((image_shape[0], image_shape[1]))
    results = tracer.run(closed, [*inputs, Feature((0, 1, 2))], "")
    shapes = [v.aval.shape for v in closed.jaxpr.outvars]
    for result in results:
        if isinstance(result, ValueError):
            raise result
    if len(results) != 1 or len(shapes[0]) != 4:
        raise ValueError(
            f"f_conv: results of shapes {shapes} for 2 images, one [B, rows, columns, "
            f"channels] accepted"
        )
    (out,), ((_, rows, columns, depth),) = results, shapes
    if not isinstance(out, Feature):
        raise ValueError("f_conv: its result does not depend on the image")
    if out.axes != (0, 1, 2):
        raise ValueError(
            f"f_conv: its result {shapes[0]} has batch, rows and columns on axes "
            f"{out.axes}; accepted is [B, rows, columns, channels]: transpose it"
        )
    digest = digest_of(out.digest, out.layout)
    operations, weights = tuple(tracer.operations), tuple(sum(tracer.weights, []))
    return Analysis(out.fields, (rows, columns, depth), digest, operations, weights)


def _refused(eqn: Any, scope: str, reason: str) -> ValueError:
    """Returns the error of an operation that cannot be split."""
    name = eqn.primitive.name
    operands = ", ".join(str(v.aval.str_short()) for v in eqn.invars)
    where = f" in {scope!r}" if scope else ""
    way_out = f"unroll it, {WAY_OUT}" if name in LOOPS else WAY_OUT
    if "platform_dependent" in scope:
        way_out += f", {WAY_OUT_OF_PLATFORMS}"
    return Unsplittable(f"{name!r} of {operands}{where}", reason, way_out)


def _of_all_branches(
    eqn: Any, index: int, traces: tuple[Trace, ...], scope: str
) -> Trace:
    """Returns the trace of one result of a `cond` from its branches'."""
    fine: Operands = []
    for trace in traces:
        if isinstance(trace, ValueError):
            return trace
        fine.append(trace)
    of_branches = [(t.digest, getattr(t, "layout", None)) for t in fine]
    digest = digest_of(eqn.primitive.name, index, of_branches)
    constants = [trace for trace in fine if isinstance(trace, Constant)]
    if len(constants) == len(fine):
        return dataclasses.replace(join_constants(constants), digest=digest)
    try:
        return dataclasses.replace(join_features(eqn, fine), digest=digest)
    except Refusal as why:
        return _refused(eqn, scope, str(why))


@dataclasses.dataclass
class Tracer:
    """Traces the values of a jaxpr, for images of `size` rows and columns.

    Attributes:
      size: rows and columns.
      operations: name and digest of every operation on features so far.
      weights: of resizes so far, along rows and along columns.
    """

    size: tuple[int, int]
    operations: list[tuple[str, int]] = dataclasses.field(default_factory=list)
    weights: tuple[list[Weights], list[Weights]] = dataclasses.field(
        default_factory=lambda: ([], [])
    )

    def run(self, closed: Any, inputs: list[Trace], scope: str) -> list[Trace]:
        """Returns the traces of the results of a jaxpr.

        A refused operation counts only if the result needs it: statistics, say, that
        nobody reads do no harm.
        """
        jaxpr = getattr(closed, "jaxpr", closed)
        traces_of: dict[Any, Trace] = dict(zip(jaxpr.invars, inputs, strict=True))
        consts = getattr(closed, "consts", ())  # of a jaxpr within another none
        for i, v in enumerate(jaxpr.constvars):
            traces_of[v] = trace_constant(consts[i] if consts else v.aval)

        def read(atom: Any) -> Trace:
            return trace_constant(atom.val) if hasattr(atom, "val") else traces_of[atom]

        for eqn in jaxpr.eqns:
            traces = [read(atom) for atom in eqn.invars]
            outputs = self.equation(eqn, traces, scope)
            traces_of.update(zip(eqn.outvars, outputs, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def equation(self, eqn: Any, traces: list[Trace], scope: str) -> list[Trace]:
        """Returns the traces of the results of one equation."""
        name, params = eqn.primitive.name, eqn.params
        inner = "/".join(filter(None, [scope, str(eqn.source_info.name_stack)]))
        if name in CALLS:
            return self.run(params[CALLS[name]], traces, inner)
        if name == "scan" and params["length"] <= MAX_LENGTH:
            shapes = [
                jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in eqn.invars
            ]
            steps = jax.make_jaxpr(functools.partial(unrolled, eqn))(*shapes)
            return self.run(steps, traces, "/".join(filter(None, [inner, "scan"])))
        if name == "cond" and isinstance(traces[0], Constant):
            return self.branches(eqn, traces[0].digest, traces[1:], inner)
        if name in UNCHANGED:
            return traces
        fine = [t for t in traces if not isinstance(t, ValueError)]
        if len(fine) < len(traces):
            refused = next(t for t in traces if isinstance(t, ValueError))
            return [refused] * len(eqn.outvars)
        constants = [t for t in fine if isinstance(t, Constant)]
        if len(constants) == len(fine):
            return [*through_constants(eqn, constants, name in ELEMENTWISE)]
        try:
            if name in OPAQUE:
                raise Refusal(OPAQUE[name])
            feature = through_features(eqn, fine)
        except Refusal as why:
            return [_refused(eqn, inner, str(why))] * len(eqn.outvars)
        count = len(eqn.outvars)
        return [self.with_digest(eqn, fine, feature, i, inner) for i in range(count)]

    def branches(
        self, eqn: Any, index: int, operands: list[Trace], scope: str
    ) -> list[Trace]:
        """Returns the traces of a choice between branches, which no image makes.

        What is chosen may depend on the size of the image, as the digest of the index
        says.

        They hold whatever is chosen: the receptive field covers that of each branch.
        So it is with `jax.lax.platform_dependent`, on every platform.
        """
        branches = eqn.params["branches"]
        platforms = eqn.params.get("branches_platforms")
        if platforms and is_specialised(eqn):
            return self.run(branches[platforms.index(None)], operands, scope)
        kind = "platform_dependent" if platforms else "cond"
        names = map(str, range(len(branches)))
        if platforms:
            names = [", ".join(names or ["default"]) for names in platforms]
        inner = "/".join(filter(None, [scope, kind]))
        per_branch = [
            self.run(branch, operands, f"{inner}({name})")
            for name, branch in zip(names, branches, strict=True)
        ]
        return [
            _of_all_branches(eqn, index, traces, inner)
            for traces in zip(*per_branch, strict=True)
        ]

    def with_digest(
        self, eqn: Any, traces: Operands, feature: Feature, index: int, scope: str
    ) -> Feature:
        """Returns a result, number `index` of the equation, with its digest."""
        name = eqn.primitive.name
        origin = next(t for t in traces if isinstance(t, Feature))
        if name == "transpose":
            layout = origin.transposed(eqn.params["permutation"])
            return dataclasses.replace(feature, digest=origin.digest, layout=layout)
        shape: list[Any] = list(eqn.outvars[index].aval.shape)
        shape[feature.axes[0]] = "batch"
        for axis, field, size in zip(
            feature.axes[1:], feature.fields, self.size, strict=True
        ):
            # Pieces are shorter by multiples of the stride; so must all layers be.
            shape[axis] = shape[axis] * field.stride - size
        where = f" in {scope!r}" if scope else ""
        if name == "dot_general" and (resize := resize_of(eqn, traces)):
            # Rows and columns may be resized in either order, which is chosen by their
            # sizes. So digests are added, and where the axes are counts as a
            # transposition.
            axis, band = origin.axes.index(resize.axis), resize.band
            own = digest_of("resize", axis, shape[feature.axes[axis]], band.digest)
            self.operations.append((f"{name!r}{where}", own))
            self.weights[axis - 1].append(band.weights)
            layout, digest = origin.transposed(resize.order), origin.digest + own
            return dataclasses.replace(feature, digest=digest, layout=layout)
        digests = [t.digest for t in traces]
        others: list[Any] = []
        if name == "gather" and isinstance(traces[1], Constant):
            digests[1] = index_digest(traces[1])
        elif name not in ELEMENTWISE:  # where constants have the features' shape
            # So have those of `ALIGNED`, but along the channels.
            same = set(origin.axes) if name in ALIGNED else set()
            others = [
                [size for axis, size in enumerate(v.aval.shape) if axis not in same]
                for v, t in zip(eqn.invars, traces, strict=True)
                if isinstance(t, Constant)
            ]
        digest = digest_of(
            name,
            index,
            params_without_sizes(eqn.params),
            shape,
            feature.fields,
            others,
            digests,
            [t.layout for t in traces if isinstance(t, Feature)],
        )
        self.operations.append((f"{name!r}{where}", digest))
        return dataclasses.replace(feature, digest=digest, layout=None)
