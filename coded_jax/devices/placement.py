"""Spreads encoding, `f_conv` and decoding over the devices of a mesh.

Encoding, decoding and the head are divided over the batch, `f_conv` over the pieces:

    before f_conv   [n, B/(p*d), h, w, C] on each device    all pieces of its images
    all-to-all      [p*n/p, B/(p*d), h, w, C]               its n/p pieces of p parts
    after f_conv    the all-to-all back

where the mesh has `p` devices along `piece` and `d` along `data`. All of it is
`jax.shard_map`, so those two are the only collectives of an inference, but for the one
gather of the logits. (Of one image for each chip libtpu makes a sum of that gather.)
Where the devices do not divide the pieces, some are padded.

A batch smaller than the number of devices is not divided: all devices encode and decode
the whole of it, each computes its pieces, of all devices, and one gather collects their
features. Without a mesh, or with one device, the same functions run as they are.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from coded_jax.devices.meshes import DATA, PIECE
from coded_jax.types import PyTree

PieceMap = Callable[[Callable[[jax.Array], jax.Array], jax.Array], jax.Array]
"""`(f, queries [m, B, ...]) -> f(queries)`, on whichever devices."""


def run_locally(f: Callable[[jax.Array], jax.Array], queries: jax.Array) -> jax.Array:
    """Runs `f` where its queries are: the `PieceMap` that moves nothing."""
    return f(queries)


def data_parallel(
    mesh: Mesh | None,
    f: Callable[..., PyTree],
    in_axes: tuple[int | None, ...],
    out_axes: Any = 0,
) -> Callable[..., PyTree]:
    """Transforms a function so that each device computes its part of the batch.

    Args:
      mesh: from `make_mesh`; None computes everything in one place.
      f: `(map_pieces, *args) -> outputs`, of each example by itself; it hands what
        shall run piece by piece on different devices to `map_pieces`, a `PieceMap`.
      in_axes: the axis of the batch in each argument, an array or pytree; None where
        it is the same for the whole batch. As for `jax.vmap`.
      out_axes: likewise in the outputs; one number, or a tuple for a tuple.

    Returns:
      `(*args) -> outputs`. A batch that the devices do not divide is padded for them.
      One smaller than their number is not divided: they all encode and decode the
      whole of it, and share the pieces.
    """
    if mesh is None or mesh.size == 1:
        return functools.partial(f, run_locally)

    def call(*args: PyTree) -> PyTree:
        batch = next(
            jax.tree.leaves(arg)[0].shape[axis]
            for arg, axis in zip(args, in_axes, strict=True)
            if axis is not None
        )
        if batch < mesh.size:
            whole = functools.partial(_own_pieces, mesh)
            return _shard(mesh, functools.partial(f, whole), P(), P())(*args)
        surplus = -batch % mesh.size

        def pad(arg: PyTree, axis: int | None) -> PyTree:
            if axis is None or not surplus:
                return arg
            # Padded and cut while whole: of sharded arrays XLA makes uneven parts,
            # which its partitioner in jax 0.12 cannot always slice.
            whole = replicated(mesh, arg)
            padded = jax.tree.map(lambda x: _pad(x, surplus, axis), whole)
            return replicated(mesh, padded)

        part = functools.partial(f, functools.partial(_exchange, mesh))
        out_specs = jax.tree.map(batch_spec, out_axes)
        outputs = _shard(mesh, part, tuple(map(batch_spec, in_axes)), out_specs)(
            *map(pad, args, in_axes)
        )
        if not surplus:
            return outputs
        cut = lambda axis, output: jax.tree.map(
            lambda x: jax.lax.slice_in_dim(x, 0, batch, axis=axis), output
        )
        whole = replicated(mesh, outputs)
        return replicated(mesh, jax.tree.map(cut, out_axes, whole))

    return call


def replicated(mesh: Mesh | None, tree: PyTree) -> PyTree:
    """Gives every device, of every process, the whole of each array, under `jit`."""
    if mesh is None or mesh.size == 1:
        return tree
    return jax.lax.with_sharding_constraint(tree, NamedSharding(mesh, P()))


def batch_sharded(mesh: Mesh | None, tree: PyTree) -> PyTree:
    """Gives each device its part of the batch, the first axis of arrays, under `jit`.

    Unlike `data_parallel` it leaves the rest to the compiler, so that functions of
    whole batches stay what they are. A batch that the devices do not divide stays
    whole.
    """
    leaves = jax.tree.leaves(tree)
    if mesh is None or mesh.size == 1 or len(leaves[0]) % mesh.size:
        return tree
    return jax.lax.with_sharding_constraint(tree, NamedSharding(mesh, batch_spec(0)))


def put_replicated(mesh: Mesh | None, tree: PyTree) -> PyTree:
    """Copies arrays of the host, the same in every process, to every device."""

    def put(x: Any) -> jax.Array:
        if mesh is None:
            return jnp.asarray(x)
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            data = put(jax.random.key_data(x))
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(x))
        x = np.asarray(x)
        return jax.make_array_from_callback(
            x.shape, NamedSharding(mesh, P()), lambda index: x[index]
        )

    return jax.tree.map(put, tree)


def _shard(mesh: Mesh, f: Callable, in_specs: Any, out_specs: Any) -> Callable:
    # Unchecked: the check refuses custom gradients that are right here.
    return jax.shard_map(
        f, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False
    )


def batch_spec(axis: int | None) -> P:
    """Returns the partition of arrays with the batch along `axis`; whole if None."""
    # Data before piece: so each all-to-all stays among the devices of one data shard.
    return P() if axis is None else P(*[None] * axis, (DATA, PIECE))


def _pad(x: jax.Array, surplus: int, axis: int) -> jax.Array:
    """Pads with copies of the last example, which `f` can compute as any other."""
    widths = [(0, surplus if i == axis else 0) for i in range(x.ndim)]
    return jnp.pad(x, widths, mode="edge") if surplus else x


def _exchange(
    mesh: Mesh, f: Callable[[jax.Array], jax.Array], queries: jax.Array
) -> jax.Array:
    """Runs `f` on some pieces of a whole data shard, not on all pieces of a part."""
    devices, count = mesh.shape[PIECE], queries.shape[0]
    if devices == 1:
        return f(queries)
    queries = _pad(queries, -count % devices, 0)
    # Else XLA looks through the concatenation of data, parity and padding, and its CPU
    # backend (jax 0.10.2) fails to compile an all-to-all of parts in unlike layouts.
    queries = jax.lax.optimization_barrier(queries)
    # Of each device this one gets its pieces, which stay behind each other: that needs
    # no transposes, and `f` runs on each of them by itself.
    queries = jax.lax.all_to_all(queries, PIECE, 0, 0, tiled=True)
    outputs = jax.lax.all_to_all(f(queries), PIECE, 0, 0, tiled=True)
    return outputs[:count]


def _own_pieces(
    mesh: Mesh, f: Callable[[jax.Array], jax.Array], queries: jax.Array
) -> jax.Array:
    """Runs `f` on this device's pieces; all have the same queries and outputs."""
    axes, count = (DATA, PIECE), queries.shape[0]
    own = -(-count // mesh.size)
    queries = _pad(queries, own * mesh.size - count, 0)
    start = jax.lax.axis_index(axes) * own
    outputs = f(jax.lax.dynamic_slice_in_dim(queries, start, own))
    return jax.lax.all_gather(outputs, axes, axis=0, tiled=True)[:count]
