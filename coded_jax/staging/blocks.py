"""Functions of the parts of a network between cuts, each with just its variables.

Parts alternate between the client's and coded ones. The client packs what a coded part
reads into one array and unpacks what it returns; what later parts need besides it keeps
meanwhile, see `types.State`.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from coded_jax.checks import first_line
from coded_jax.splitting.flattening import (
    BATCH,
    Flat,
    Form,
    flatten,
    form_of,
    needed,
    variables_among,
)
from coded_jax.splitting.inlining import run
from coded_jax.staging.graph import (
    Graph,
    Place,
    Value,
    coarsest,
    factors,
    make_graph,
    names_of,
)
from coded_jax.staging.resizing import run_resized
from coded_jax.types import Block, PyTree, State, apart, together

OTHER = (
    "model: other operations given for {} images than for 2 of float32, the same ones "
    "accepted"
)


@dataclasses.dataclass(frozen=True, eq=False)
class Network:
    """A network to be taken apart: one object for all parts, equal to itself alone.

    It holds no jaxpr, so that it can be sent to other processes.

    Attributes:
      model: `(variables, images [B, H, W, C]) -> result`, an object of its own, so
        that no other network finds its traces.
      structure: of its variables.
      forms: of each leaf of them, see `flattening.form_of`.
      paths: name of each leaf.
      image_shape: `(H, W, C)`.
    """

    model: Block
    structure: Any
    forms: tuple[Form, ...]
    paths: tuple[str, ...]
    image_shape: tuple[int, int, int]

    @property
    def graph(self) -> Graph:
        """Its operations, for `flattening.BATCH` images of float32."""
        return _graph_of(self)

    def shapes(self, known: dict[int, Any], dtype: Any) -> PyTree:
        """Returns the shapes of all variables. Real ones that are not known have the
        images' dtype, unless that is float32."""

        def shape(i: int, form: Form) -> jax.ShapeDtypeStruct:
            if i in known:
                return form_of(known[i]).shape_struct()
            real = jnp.issubdtype(form.dtype, jnp.floating) and dtype != jnp.float32
            return (form._replace(dtype=dtype) if real else form).shape_struct()

        leaves = [shape(i, form) for i, form in enumerate(self.forms)]
        return jax.tree.unflatten(self.structure, leaves)


@functools.lru_cache(maxsize=16)
def _graph_of(network: Network) -> Graph:
    """Traces a network, and checks what it returns.

    Raises:
      ValueError: it fails, or does not return one array that depends on the image.
    """
    flat, _ = _trace(network, BATCH), _trace(network, 1)
    if (count := len(flat.results)) != 1:
        raise ValueError(f"model: {count} results given, one accepted, the logits")
    if flat.results[0] is flat.image:
        raise ValueError("model: the images themselves given, logits of them accepted")
    made = {v for eqn in flat.dynamic for v in eqn.outvars}
    if flat.results[0] not in made:
        raise ValueError("model: its result does not depend on the image")
    try:
        more = functools.cache(functools.partial(_one_more, network, flat))
        graph = make_graph(flat, more)
    except ValueError as error:  # whose operations cannot be counted
        raise ValueError(f"model: {str(error).removeprefix('f: ')}") from error
    if not any(op.flops for op in graph.operations):
        raise ValueError("model: one that computes nothing given, a CNN accepted")
    return graph


def _trace(network: Network, batch: int) -> Flat:
    """Traces a network for so many images.

    Raises:
      ValueError: it fails.
    """
    shapes = network.shapes({}, jnp.dtype(jnp.float32))
    try:
        return flatten(network.model, shapes, network.image_shape, batch)
    except Exception as error:  # a function of the user's raises anything
        raise ValueError(
            f"model: fails for images {network.image_shape}, {batch} of them: "
            f"{first_line(error)}"
        ) from error


def _one_more(network: Network, flat: Flat) -> Flat | None:
    """Traces a network for one more image; None if it fails or has other operations."""
    try:
        more = _trace(network, BATCH + 1)
    except ValueError:
        return None
    return more if names_of(more) == names_of(flat) else None


class Part(NamedTuple):
    """Operations between two cuts.

    Attributes:
      start, end: numbers of the first one and of the one behind the last.
      coded: whether pieces of its input can be computed as the whole.
    """

    start: int
    end: int
    coded: bool


def network_of(
    model: Block, variables: PyTree, image_shape: tuple[int, int, int]
) -> Network:
    """Returns a network to be taken apart; arguments as of `plan_stages`."""
    leaves, structure = jax.tree.flatten_with_path(variables)
    forms = tuple(form_of(leaf) for _, leaf in leaves)
    paths = [
        jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in leaves
    ]
    if len(set(paths)) < len(paths):  # keys with points in them
        paths = [jax.tree_util.keystr(path) for path, _ in leaves]
    own = functools.partial(model)
    return Network(own, structure, forms, tuple(paths), image_shape)


def blocks_of(network: Network, parts: Sequence[Part]) -> list[Block]:
    """Returns a function for each part, in their order.

    Block `i` takes `variables["part_i"]`, counted from 1, see `variables_of`, and what
    the block before it returns, see `types.State`; the first one takes images. The
    last one returns the result of the network.
    """
    leaves = _leaves_of(network.graph.flat, parts)
    return [
        functools.partial(_compute, network, tuple(parts), i, leaves[i])
        for i in range(len(parts))
    ]


def name_of(index: int) -> str:
    """Returns the name of the variables of part `index`, counted from 0."""
    return f"part_{index + 1}"


def variables_of(
    network: Network, parts: Sequence[Part], variables: PyTree
) -> dict[str, dict[str, Any]]:
    """Returns the variables of each part that has some: by its name, leaves by paths.

    Args:
      network: the network.
      parts: its parts.
      variables: arrays or shapes.
    """
    leaves = jax.tree.leaves(variables)
    return {
        name_of(i): {network.paths[leaf]: leaves[leaf] for leaf in own}
        for i, own in enumerate(_leaves_of(network.graph.flat, parts))
        if own
    }


def _leaves_of(flat: Flat, parts: Sequence[Part]) -> list[tuple[int, ...]]:
    """Returns the numbers of the leaves that each part needs."""
    numbers = {v: i for i, v in enumerate(flat.weights)}
    found = []
    for part in parts:
        reads = _wanted(flat, parts, part)
        reads |= _reads(needed(flat.constant, reads))
        found.append(tuple(sorted(numbers[v] for v in reads if v in numbers)))
    return found


def _wanted(flat: Flat, parts: Sequence[Part], part: Part) -> set[Any]:
    """Returns the variables that a part reads, or returns."""
    reads = _reads(flat.dynamic[part.start : part.end])
    return reads | variables_among(flat.results) if part is parts[-1] else reads


def _reads(eqns: Sequence[Any]) -> set[Any]:
    return variables_among(v for eqn in eqns for v in eqn.invars)


class _Interface(NamedTuple):
    """Values that cross a cut.

    Attributes:
      packed: values that are packed into one array.
      kept: values that the client keeps beside it.
    """

    packed: list[Value]
    kept: list[Value]


@functools.lru_cache(maxsize=64)
def _interfaces(graph: Graph, parts: tuple[Part, ...]) -> list[_Interface]:
    """Returns the values that cross the cut before each part."""
    found = [_Interface([(-1, 0)], [])]
    for part, following in itertools.pairwise(parts):
        live = graph.live(part.end)
        if part.coded:
            packed = [v for v in live if graph.made_by[v] >= part.start]
            kept = [v for v in live if v not in packed]
        elif following.coded:
            reads = _reads(graph.flat.dynamic[following.start : following.end])
            packed = [v for v in live if v in reads]
            kept = [v for v in live if graph.last_use[v] >= following.end]
        else:
            packed, kept = live, []
        found.append(_Interface(*([graph.value(v) for v in x] for x in (packed, kept))))
    return found


def _compute(
    network: Network,
    parts: tuple[Part, ...],
    index: int,
    own: tuple[int, ...],
    variables: PyTree,
    state: State,
) -> State:
    """Computes a part: a block, see `blocks_of`; `own` are numbers of its leaves."""
    x, kept = apart(state)
    part, graph = parts[index], network.graph
    leaves = {i: variables[name_of(index)][network.paths[i]] for i in own}
    crossing = _interfaces(graph, parts)
    packed, held = crossing[index]
    # Features cross a cut in the dtype of the images, whatever the network computes in.
    dtype = x.dtype if _is_real(x) else jnp.dtype(jnp.float32)
    shapes = network.shapes(leaves, dtype)
    flat = flatten(network.model, shapes, network.image_shape, x.shape[0], dtype)
    if not graph.follows(flat, part.end):
        return _compute_twice(network, parts, index, own, variables, state)
    flat = graph.ordered(flat)
    eqns = flat.dynamic[part.start : part.end]
    variable = lambda value: (
        flat.image if value[0] < 0 else flat.dynamic[value[0]].outvars[value[1]]
    )
    values = flat.constants([leaves.get(i) for i in range(len(network.forms))])
    run(needed(flat.constant, _wanted(flat, parts, part)), values)
    x = x.astype(variable(packed[0]).aval.dtype)
    values.update(zip(map(variable, packed), _unpack(x, packed, graph), strict=True))
    if part.coded:
        missing = _missing(coarsest(map(graph.place, packed)), x)
        less = {
            variable(value): _less(graph.place(value), missing)
            for value in [*packed, *_made(graph, part)]
        }
        run_resized(eqns, less, values, flat.constant)
    else:
        values.update(zip(map(variable, held), kept, strict=True))
        run(eqns, values)
    if index + 1 == len(parts):
        return values[flat.results[0]]
    packed, held = crossing[index + 1]
    out = _pack([values[variable(value)] for value in packed], packed, graph)
    out = out.astype(dtype) if _is_real(out) else out
    if part.coded:
        return together(out, kept)
    return together(out, tuple(values[variable(value)] for value in held))


def _is_real(x: jax.Array) -> bool:
    return jnp.issubdtype(x.dtype, jnp.floating)


class _Batches(NamedTuple):
    """The axis of the images of values, found by two traces.

    Some functions are other operations where there is one image, as `jnp.matmul`; for
    more they are the same.

    Attributes:
      two: the network, for `flattening.BATCH` images.
      more: the same for one more.
    """

    two: Flat
    more: Flat

    def axis(self, value: Value) -> int | None:
        """Returns the axis; None of values that have none.

        Raises:
          ValueError: images lie on no axis of their own.
        """
        number, result = value
        if number < 0:
            return 0
        two, more = (flat.dynamic[number].outvars[result].aval.shape for flat in self)
        found = [i for i, size in enumerate(two) if size != more[i]]
        if not found:
            return None
        axis = found[0]
        if len(found) > 1 or (two[axis], more[axis]) != (BATCH, BATCH + 1):
            raise ValueError(OTHER.format(1))
        return axis


def _compute_twice(
    network: Network,
    parts: tuple[Part, ...],
    index: int,
    own: tuple[int, ...],
    variables: PyTree,
    state: State,
) -> State:
    """Computes a part of one image as that of two which are the same; see `_compute`.

    Raises:
      ValueError: there are more images, or images lie on no axis of their own.
    """
    x, kept = apart(state)
    graph = network.graph
    if x.shape[0] != 1:
        raise ValueError(OTHER.format(x.shape[0]))
    leaves = {i: variables[name_of(index)][network.paths[i]] for i in own}
    shapes = network.shapes(leaves, jnp.dtype(jnp.float32))
    more = flatten(network.model, shapes, network.image_shape, BATCH + 1)
    if not graph.follows(more, len(graph.operations)):
        raise ValueError(OTHER.format(BATCH + 1))
    batches = _Batches(graph.flat, graph.ordered(more))
    crossing = _interfaces(graph, parts)
    held = []
    for array, value in zip(kept, crossing[index].kept, strict=True):
        axis = batches.axis(value)
        twice = array if axis is None else jnp.concatenate([array, array], axis)
        held.append(twice)
    both = together(jnp.concatenate([x, x]), tuple(held))
    result = _compute(network, parts, index, own, variables, both)
    one = lambda x, axis: x if axis is None else lax.slice_in_dim(x, 0, 1, axis=axis)
    if index + 1 == len(parts):
        return one(result, batches.axis(graph.value(graph.flat.results[0])))
    out, kept = apart(result)
    axes = map(batches.axis, crossing[index + 1].kept)
    return together(one(out, 0), tuple(map(one, kept, axes)))


def _made(graph: Graph, part: Part) -> list[Value]:
    """Returns the values that the operations of a part make."""
    operations = graph.operations[part.start : part.end]
    return [
        (part.start + i, j)
        for i, op in enumerate(operations)
        for j in range(len(op.eqn.outvars))
    ]


def _missing(place: Place, x: jax.Array) -> list[Fraction]:
    """Returns the number of rows and columns of pixels that a piece lacks."""
    sides = zip(place.sizes, x.shape[1:3], place.strides, strict=True)
    return [(size - own) * stride for size, own, stride in sides]


def _less(place: Place, missing: Sequence[Any]) -> dict[int, int]:
    """Returns the rows and columns that a value lacks, by axis, for missing pixels."""
    return {
        axis: int(pixels / stride)
        for axis, pixels, stride in zip(
            place.axes[1:], missing, place.strides, strict=True
        )
    }


def _pack(
    arrays: Sequence[jax.Array], packed: Sequence[Value], graph: Graph
) -> jax.Array:
    """Returns values as one array `[B, rows, columns, channels]`.

    Of values that are finer than others, the ones at a place become channels.
    """
    base, parts = coarsest(map(graph.place, packed)), []
    for x, value in zip(arrays, packed, strict=True):
        place = graph.place(value)
        others = [a for a in range(x.ndim) if a not in place.axes]
        order = [*place.axes, *others]
        x = lax.transpose(x, order) if order != sorted(order) else x
        rows, columns = factors(place, base)  # type: ignore
        if (rows, columns) != (1, 1):
            batch, height, width, *_ = x.shape
            x = x.reshape(batch, height // rows, rows, width // columns, columns, -1)
            x = lax.transpose(x, (0, 1, 3, 2, 4, 5))
        parts.append(x if x.ndim == 4 else x.reshape(*x.shape[:3], -1))
    return jnp.concatenate(parts, axis=-1) if len(parts) > 1 else parts[0]


def _unpack(x: jax.Array, packed: Sequence[Value], graph: Graph) -> list[jax.Array]:
    """Returns the values of an array, as `_pack` has packed them."""
    base = coarsest(map(graph.place, packed))
    batch, height, width, _ = x.shape
    arrays, first = [], 0
    for value in packed:
        place, sizes = graph.place(value), graph.channels(graph.variable(value))
        rows, columns = factors(place, base)  # type: ignore
        last = first + math.prod(sizes) * rows * columns
        part = x if len(packed) == 1 else x[..., first:last]
        if (rows, columns) != (1, 1):
            part = part.reshape(batch, height, width, rows, columns, -1)
            part = lax.transpose(part, (0, 1, 3, 2, 4, 5))
        part = part.reshape(batch, height * rows, width * columns, *sizes)
        others = [a for a in range(part.ndim) if a not in place.axes]
        order = [*place.axes, *others]
        back = [order.index(a) for a in range(len(order))]
        arrays.append(lax.transpose(part, back) if back != sorted(back) else part)
        first = last
    return arrays
