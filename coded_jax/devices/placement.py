"""Which device computes what: a mesh with the axes `piece` and `data`.

Encoding, decoding and the head are spread over the batch, `f_conv` over the pieces:

    before f_conv   [n, B/(p*d), h, w, C] on each device    all pieces of its images
    all-to-all      [n/p, B/d, h, w, C]                     its pieces of more images
    after f_conv    the all-to-all back

where the mesh has `p` devices along `piece` and `d` along `data`. All of it is
`jax.shard_map`, so those two are the only collectives of an inference, but for
collecting the logits. (A batch smaller than the number of devices is not divided; then
one sum over the devices collects the features.) Without a mesh, or with one device, the
same functions run as they are.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from coded_jax.devices.startup import give_threads
from coded_jax.types import PyTree

PIECE, DATA = "piece", "data"

Spread = Callable[[Callable[[jax.Array], jax.Array], jax.Array], jax.Array]
"""`(f, queries [m, B, ...]) -> f(queries)`, computed by whichever devices."""


def make_mesh(
    n: int, devices: int | None = None, shape: tuple[int, int] | None = None
) -> Mesh:
    """The devices as `piece` x `data`.

    Args:
      n: pieces, data and parity.
      devices: how many to use at most; all if None.
      shape: devices along `piece` and along `data`. If None, one piece each where
        there are n or more devices, and as many batch shards as the rest allows;
        with fewer, all of them along `piece`, with several pieces each.

    Raises:
      ValueError: there are not so many devices, or more along `piece` than pieces.
    """
    give_threads()
    found = jax.devices()
    if devices is not None and not 1 <= devices <= len(found):
        raise ValueError(
            f"devices: {devices} given, 1..{len(found)} accepted, the "
            f"{found[0].platform} devices found"
        )
    count = devices or len(found)
    sizes = [shape] if shape else [(p, count // p) for p in range(min(n, count), 0, -1)]
    # The first that every process takes part in.
    pieces, shards = next(filter(_spans_processes(found), sizes), sizes[0])
    if not (1 <= pieces <= n and shards >= 1 and pieces * shards <= count):
        raise ValueError(
            f"mesh: {pieces}x{shards} given, piece x data accepted with 1..{n} along "
            f"piece and a product of at most {count}, the number of devices"
        )
    grid = np.asarray(found[: pieces * shards]).reshape(pieces, shards)
    if not _spans_processes(found)((pieces, shards)):
        raise ValueError(
            f"mesh: {pieces}x{shards} given, one with devices of all "
            f"{jax.process_count()} processes accepted"
        )
    # Auto: jax 0.9 makes Explicit the default, where implicit resharding is an error.
    return Mesh(grid, (PIECE, DATA), axis_types=(AxisType.Auto, AxisType.Auto))


def _spans_processes(found: list[jax.Device]) -> Callable[[tuple[int, int]], bool]:
    def spans(shape: tuple[int, int]) -> bool:
        used = {device.process_index for device in found[: shape[0] * shape[1]]}
        return len(used) == jax.process_count()

    return spans


def here(f: Callable[[jax.Array], jax.Array], queries: jax.Array) -> jax.Array:
    """The `Spread` that leaves everything where it is."""
    return f(queries)


def over_batch(
    mesh: Mesh | None,
    f: Callable[..., PyTree],
    in_axes: tuple[int | None, ...],
    out_axes: Any = 0,
) -> Callable[..., PyTree]:
    """Each device computes its part of the batch.

    Args:
      mesh: from `make_mesh`; None computes everything in one place.
      f: `(spread, *args) -> outputs`, for each example by itself; it hands what shall
        run piece by piece on different devices to `spread`.
      in_axes: of each argument, an array or pytree, the axis of its batch; None: it
        is the same for the whole batch. As for `jax.vmap`.
      out_axes: of the outputs, likewise; one number, or a tuple for a tuple.

    Returns:
      `(*args) -> outputs`. A batch that the devices do not divide is padded for them.
      One smaller than their number is not divided: they all encode and decode the
      whole of it, and still share `f_conv`.
    """
    if mesh is None or mesh.size == 1:
        return lambda *args: f(here, *args)

    def call(*args: PyTree) -> PyTree:
        batch = next(
            jax.tree.leaves(arg)[0].shape[axis]
            for arg, axis in zip(args, in_axes, strict=True)
            if axis is not None
        )
        if batch < mesh.size:
            whole = functools.partial(_each_its_own, mesh)
            return _shard(mesh, functools.partial(f, whole), P(), P())(*args)
        surplus = -batch % mesh.size

        def pad(arg: PyTree, axis: int | None) -> PyTree:
            if axis is None or not surplus:
                return arg
            # Padded and cut while whole: of sharded arrays XLA makes uneven parts,
            # which its partitioner in jax 0.12 cannot always slice.
            whole = everywhere(mesh, arg)
            padded = jax.tree.map(lambda x: _pad(x, surplus, axis), whole)
            return everywhere(mesh, padded)

        part = functools.partial(f, functools.partial(_exchange, mesh))
        out_specs = jax.tree.map(_spec, out_axes)
        outputs = _shard(mesh, part, tuple(map(_spec, in_axes)), out_specs)(
            *map(pad, args, in_axes)
        )
        if not surplus:
            return outputs
        cut = lambda axis, output: jax.tree.map(
            lambda x: jax.lax.slice_in_dim(x, 0, batch, axis=axis), output
        )
        whole = everywhere(mesh, outputs)
        return everywhere(mesh, jax.tree.map(cut, out_axes, whole))

    return call


def everywhere(mesh: Mesh | None, tree: PyTree) -> PyTree:
    """Under `jit`: gives every device, of every process, the whole of each array."""
    if mesh is None or mesh.size == 1:
        return tree
    return jax.lax.with_sharding_constraint(tree, NamedSharding(mesh, P()))


def divided(mesh: Mesh | None, tree: PyTree) -> PyTree:
    """Under `jit`: gives each device its part of the batch, the first axis of arrays.

    Unlike `over_batch` it leaves the rest to the compiler, so that functions of whole
    batches stay what they are. A batch that the devices do not divide stays whole.
    """
    leaves = jax.tree.leaves(tree)
    if mesh is None or mesh.size == 1 or len(leaves[0]) % mesh.size:
        return tree
    return jax.lax.with_sharding_constraint(tree, NamedSharding(mesh, _spec(0)))


def put_everywhere(mesh: Mesh | None, tree: PyTree) -> PyTree:
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


def padded_size(mesh: Mesh | None, batch: int) -> int:
    """The smallest size from `batch` on that the devices divide."""
    return batch if mesh is None else batch + -batch % mesh.size


def _shard(mesh: Mesh, f: Callable, in_specs: Any, out_specs: Any) -> Callable:
    # Unchecked: the check refuses custom gradients that are right here.
    return jax.shard_map(
        f, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False
    )


def _spec(axis: int | None) -> P:
    # Data before piece: so each all-to-all stays among the devices of one data shard.
    return P() if axis is None else P(*[None] * axis, (DATA, PIECE))


def _pad(x: jax.Array, surplus: int, axis: int) -> jax.Array:
    """Repeats the last example: unlike zeros, it is nothing that f has never seen."""
    widths = [(0, surplus if i == axis else 0) for i in range(x.ndim)]
    return jnp.pad(x, widths, mode="edge") if surplus else x


def _exchange(
    mesh: Mesh, f: Callable[[jax.Array], jax.Array], queries: jax.Array
) -> jax.Array:
    """`f` on pieces of the whole data shard, instead of all pieces of a part of it."""
    devices, count = mesh.shape[PIECE], queries.shape[0]
    if count < devices:  # as the parity pieces in training: no device would be left out
        return f(queries)
    queries = _pad(queries, -count % devices, 0)
    # Else XLA looks through the concatenation of data, parity and padding, and its CPU
    # backend (jax 0.10.2) fails to compile an all-to-all of parts in unlike layouts.
    queries = jax.lax.optimization_barrier(queries)
    queries = jax.lax.all_to_all(queries, PIECE, 0, 1, tiled=True)
    outputs = jax.lax.all_to_all(f(queries), PIECE, 1, 0, tiled=True)
    return outputs[:count]


def _each_its_own(
    mesh: Mesh, f: Callable[[jax.Array], jax.Array], queries: jax.Array
) -> jax.Array:
    """`f` on this device's pieces; all devices have the same queries and outputs."""
    devices, count = mesh.shape[PIECE], queries.shape[0]
    own = -(-count // devices)
    queries = _pad(queries, own * devices - count, 0)
    start = jax.lax.axis_index(PIECE) * own
    outputs = f(jax.lax.dynamic_slice_in_dim(queries, start, own))
    whole = jnp.zeros((own * devices, *outputs.shape[1:]), outputs.dtype)
    whole = jax.lax.dynamic_update_slice_in_dim(whole, outputs, start, 0)
    return jax.lax.psum(whole, PIECE)[:count]
