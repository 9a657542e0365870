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
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from coded_jax.checks import first_line
from coded_jax.splitting import flattening
from coded_jax.splitting.flattening import BATCH, Flat
from coded_jax.staging.graph import Graph, Packing, Place, make_graph, names_of
from coded_jax.staging.resizing import run_resized
from coded_jax.types import Block, Kept, PyTree, State, apart, together

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
    forms: tuple[jax.ShapeDtypeStruct, ...]
    paths: tuple[str, ...]
    image_shape: tuple[int, int, int]

    def traced(
        self, batch: int, known: dict[int, Any] | None = None, dtype: Any = jnp.float32
    ) -> Flat:
        """Traces the network for so many images.

        Args:
          batch: B.
          known: the leaves of its variables that are at hand, by number. Others that
            are real have the images' dtype, unless that is float32.
          dtype: of the images.
        """
        forms = list(self.forms)
        for i, form in enumerate(forms):
            if known and i in known:
                forms[i] = flattening.form_of(known[i])
            elif dtype != jnp.float32 and jnp.issubdtype(form.dtype, jnp.floating):
                forms[i] = form.update(dtype=dtype)
        variables = jax.tree.unflatten(self.structure, forms)
        return flattening.flatten(self.model, variables, self.image_shape, batch, dtype)


@functools.lru_cache(maxsize=16)
def graph_of(network: Network) -> Graph:
    """Returns the operations of a network, for `BATCH` images of float32.

    Raises:
      ValueError: it fails, or does not return one array that depends on the image.
    """
    batch = BATCH
    try:
        flat = network.traced(batch)
        batch = 1
        network.traced(batch)
    except Exception as error:  # a function of the user's raises anything
        raise ValueError(
            f"model: fails for images {network.image_shape}, {batch} of them: "
            f"{first_line(error)}"
        ) from error
    made = [v for eqn in flat.dynamic for v in eqn.outvars]
    if len(flat.results) != 1 or flat.results[0] not in made:
        raise ValueError("model: one result that depends on the images accepted")

    @functools.cache
    def trace_more() -> Flat | None:
        """Traces it for one more image; None if it fails or has other operations."""
        try:
            more = network.traced(BATCH + 1)
        except Exception:  # as above
            return None
        return more if names_of(more) == names_of(flat) else None

    graph = make_graph(flat, trace_more)
    if not any(op.flops for op in graph.operations):
        raise ValueError("model: one that computes nothing given, a CNN accepted")
    return graph


def network_of(
    model: Block, variables: PyTree, image_shape: tuple[int, int, int]
) -> Network:
    """Returns a network to be taken apart; arguments as of `plan_stages`."""
    leaves, structure = jax.tree.flatten_with_path(variables)
    paths = [
        jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in leaves
    ]
    if len(set(paths)) < len(paths):  # keys with points in them
        paths = [jax.tree_util.keystr(path) for path, _ in leaves]
    return Network(
        model=functools.partial(model),
        structure=structure,
        forms=tuple(flattening.form_of(leaf) for _, leaf in leaves),
        paths=tuple(paths),
        image_shape=image_shape,
    )


class Part(NamedTuple):
    """Operations between two cuts.

    Attributes:
      start, end: numbers of the first one and of the one behind the last.
      coded: whether pieces of its input can be computed as the whole.
    """

    start: int
    end: int
    coded: bool


@dataclasses.dataclass(frozen=True)
class PartBlock:
    """A part of a network as a block.

    It takes `variables[name]`, the part's own leaves by their paths, and what the block
    before it returns, see `types.State`; that of the first part takes images. That of
    the last part returns the result of the network.

    Attributes:
      network: the network.
      parts: all of its parts.
      index: of this part, from 0.
      leaves: numbers of the leaves that it needs.
    """

    network: Network
    parts: tuple[Part, ...]
    index: int
    leaves: tuple[int, ...]

    @property
    def name(self) -> str:
        """The key of its variables, counted from 1."""
        return f"part_{self.index + 1}"

    @property
    def is_last(self) -> bool:
        """Returns whether it is the part behind the last cut."""
        return self.index + 1 == len(self.parts)

    def variables_among(self, variables: PyTree) -> dict[str, Any]:
        """Returns those leaves of the network's variables that it needs."""
        leaves = jax.tree.leaves(variables)
        return {self.network.paths[i]: leaves[i] for i in self.leaves}

    def __call__(self, variables: PyTree, state: State) -> State:
        x, kept = apart(state)
        network, graph = self.network, graph_of(self.network)
        part, interfaces = self.parts[self.index], _interfaces(graph, self.parts)
        packing, held = interfaces[self.index]
        own = variables[self.name] if self.leaves else {}
        leaves = {i: own[network.paths[i]] for i in self.leaves}
        # Features cross a cut in the dtype of the images, whatever the network
        # computes in.
        is_real = lambda x: jnp.issubdtype(x.dtype, jnp.floating)
        dtype = x.dtype if is_real(x) else jnp.dtype(jnp.float32)
        flat = network.traced(x.shape[0], leaves, dtype)
        if (traced := graph.matched(flat, part.end)) is None:
            return self._run_twice(variables, x, kept, held)
        values = flat.constants([leaves.get(i) for i in range(len(network.forms))])
        eqns = [flat.dynamic[i] for i in graph.order[part.start : part.end]]
        flattening.run(_constants_of(flat, eqns, self.is_last), values)
        x = x.astype(traced[packing.variables[0]].aval.dtype)
        inputs = [traced[v] for v in packing.variables]
        values |= zip(inputs, _unpack(x, packing, graph), strict=True)
        if part.coded:
            operations = graph.operations[part.start : part.end]
            made = [v for op in operations for v in op.eqn.outvars]
            less = {
                traced[v]: _less(graph.places[v], packing.base, x)
                for v in (*packing.variables, *made)
            }
            run_resized(eqns, less, values, flat.constant)
        else:
            values |= zip((traced[v] for v in held), kept, strict=True)
            flattening.run(eqns, values)
        if self.is_last:
            return values[flat.results[0]]
        after, held = interfaces[self.index + 1]
        out = _pack([values[traced[v]] for v in after.variables], after, graph)
        out = out.astype(dtype) if is_real(out) else out
        if not part.coded:
            kept = tuple(values[traced[v]] for v in held)
        return together(out, kept)

    def _run_twice(
        self, variables: PyTree, x: jax.Array, kept: Kept, held: list[Any]
    ) -> State:
        """Computes one image as two which are the same.

        Some functions are other operations for one image, as `jnp.matmul`. What is kept
        stays that of two images, since later parts are computed so, too.

        Raises:
          ValueError: there are more images, or images lie on no axis of their own.
        """
        if x.shape[0] != 1:
            raise ValueError(OTHER.format(x.shape[0]))
        twice = []
        for array, v in zip(kept, held, strict=False):  # a piece comes without
            sizes = enumerate(zip(array.shape, v.aval.shape, strict=True))
            longer = [(axis, pair) for axis, pair in sizes if pair[0] != pair[1]]
            if longer and [pair for _, pair in longer] != [(1, BATCH)]:
                raise ValueError(OTHER.format(1))
            twice.append(jnp.repeat(array, 2, longer[0][0]) if longer else array)
        out, kept = apart(self(variables, together(jnp.repeat(x, 2, 0), tuple(twice))))
        return together(out[:1], kept)


def blocks_of(network: Network, parts: Sequence[Part]) -> list[PartBlock]:
    """Returns a function for each part, in their order."""
    graph, blocks = graph_of(network), []
    for index, part in enumerate(parts):
        eqns = [op.eqn for op in graph.operations[part.start : part.end]]
        eqns += _constants_of(graph.flat, eqns, part is parts[-1])
        reads = flattening.variables_among(v for eqn in eqns for v in eqn.invars)
        if part is parts[-1]:
            reads |= flattening.variables_among(graph.flat.results)
        leaves = tuple(i for i, v in enumerate(graph.flat.weights) if v in reads)
        blocks.append(PartBlock(network, tuple(parts), index, leaves))
    return blocks


def _constants_of(flat: Flat, eqns: Sequence[Any], is_last: bool) -> list[Any]:
    """Returns the equations of constants that the equations of a part need."""
    goals = [v for eqn in eqns for v in eqn.invars]
    return flattening.needed(flat.constant, goals + flat.results * is_last)


@functools.lru_cache(maxsize=64)
def _interfaces(
    graph: Graph, parts: tuple[Part, ...]
) -> list[tuple[Packing, list[Any]]]:
    """Returns the values that cross the cut before each part: those that are packed
    into one array, and those that the client keeps beside it."""
    crossing = [([graph.flat.image], [])]
    for part, following in itertools.pairwise(parts):
        live = graph.live[part.end]
        if part.coded:
            is_own = lambda v, start=part.start: graph.made_by[v] >= start
            packed, kept = filter(is_own, live), itertools.filterfalse(is_own, live)
        elif following.coded:  # which may read what others do later, too
            later = graph.operations[following.start : following.end]
            reads = {v for op in later for v in op.reads}
            packed = (v for v in live if v in reads)
            kept = (v for v in live if graph.last_use[v] >= following.end)
        else:
            packed, kept = live, ()
        crossing.append((list(packed), list(kept)))
    interfaces = []
    for packed, kept in crossing:
        packing = graph.packing(packed)
        assert packing is not None  # a plan cuts where they fit
        interfaces.append((packing, kept))
    return interfaces


def _less(place: Place, base: Place, x: jax.Array) -> dict[int, int]:
    """Returns the rows and columns, by axis, that a value lacks on a piece `x` of an
    array whose place is `base`."""
    return {
        place.axes[1 + i]: int(
            (base.sizes[i] - x.shape[1 + i]) * base.strides[i] / place.strides[i]
        )
        for i in range(2)
    }


def _pack(arrays: Sequence[jax.Array], packing: Packing, graph: Graph) -> jax.Array:
    """Returns values as one array `[B, rows, columns, channels]`.

    Of values that are finer than others, the ones at a place become channels.
    """
    parts = []
    of_values = zip(arrays, packing.variables, packing.finer, strict=True)
    for array, v, (rows, columns) in of_values:
        x = jnp.moveaxis(array, graph.places[v].axes, (0, 1, 2))
        if (rows, columns) != (1, 1):
            batch, height, width, *_ = x.shape
            blocks = (batch, height // rows, rows, width // columns, columns, -1)
            x = jnp.swapaxes(x.reshape(blocks), 2, 3)
        parts.append(x if x.ndim == 4 else x.reshape(*x.shape[:3], -1))
    return jnp.concatenate(parts, axis=-1) if len(parts) > 1 else parts[0]


def _unpack(x: jax.Array, packing: Packing, graph: Graph) -> list[jax.Array]:
    """Returns the values of an array, as `_pack` has packed them."""
    batch, height, width, _ = x.shape
    arrays, done = [], 0
    for v, (rows, columns) in zip(packing.variables, packing.finer, strict=True):
        sizes = graph.channels(v)
        channels = math.prod(sizes) * rows * columns
        part = x if len(packing.finer) == 1 else x[..., done : done + channels]
        if (rows, columns) != (1, 1):
            part = part.reshape((batch, height, width, rows, columns, -1))
            part = jnp.swapaxes(part, 2, 3)
        part = part.reshape(batch, height * rows, width * columns, *sizes)
        arrays.append(jnp.moveaxis(part, (0, 1, 2), graph.places[v].axes))
        done += channels
    return arrays
