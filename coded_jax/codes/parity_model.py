"""ParM: the code is a sum, and the network of the parity worker is learned."""

from __future__ import annotations

import zlib

import jax
import jax.numpy as jnp

from coded_jax.codes.entry import CodeEntry
from coded_jax.codes.linear import addition
from coded_jax.types import Code, CodeShape, PyTree


def parity_model(shape: CodeShape, variables: PyTree, start: str = "base") -> Code:
    """Builds parity models with the addition code (Kosaian, Rashmi, Venkataraman 2019).

    Parity j is `sum_i (i+1)^j piece_i`, and its worker's network is trained to make
    `sum_i (i+1)^j share_i` of it, so that any k results decode by subtraction. Training
    minimises the error of the decoded shares, as of every code here; where r is 1 that
    error is the parity share's, as in ParM. The network is the base model with weights
    of its own, which start as the base model's (weight decay draws them back there)
    or, as in ParM, are drawn anew. Statistics of batch norms begin as the base model's;
    where groups of images are coded, the network gathers its own, see
    `training.parity_models`, else they stay. With several coded stages, each one has
    such networks of its own.

    Args:
      shape: the sizes.
      variables: of the base model; arrays or shapes (`jax.ShapeDtypeStruct`).
      start: `base` or `anew`.

    Returns:
      A code with parameters `{"worker": ...}`: the weights of its r networks, less the
      frozen ones if they start there, with a leading axis `[r]`.
    """
    code = addition(shape)

    def init(key: jax.Array) -> PyTree:
        def weights(path: tuple, x: jax.Array) -> jax.Array:
            if not jnp.issubdtype(x.dtype, jnp.floating):
                return jnp.zeros(shape.r)
            if start == "base" or _is_statistic(path):
                return jnp.zeros((shape.r, *x.shape))
            name = jax.tree_util.keystr(path)
            own_key = jax.random.fold_in(key, zlib.crc32(name.encode()))
            keys = jax.random.split(own_key, shape.r)
            return jax.vmap(lambda key: _drawn(key, name, x.shape))(keys)

        return {"worker": jax.tree_util.tree_map_with_path(weights, variables)}

    def worker(params: PyTree, frozen: PyTree) -> PyTree:
        def add(path: tuple, x: jax.Array, more: jax.Array) -> jax.Array:
            own = x[None]
            if jnp.issubdtype(x.dtype, jnp.floating):
                if _is_statistic(path):
                    more = jax.lax.stop_gradient(more)
                added = start == "base" or _is_statistic(path)
                own = own + more if added else more
            return jnp.broadcast_to(own, (shape.r, *x.shape)).astype(x.dtype)

        return jax.tree_util.tree_map_with_path(add, frozen, params["worker"])

    return code._replace(init=init, parity_worker=worker)


def _is_statistic(path: tuple) -> bool:
    return "batch_stats" in jax.tree_util.keystr(path)


def _drawn(key: jax.Array, name: str, shape: tuple[int, ...]) -> jax.Array:
    """Draws kernels as Flax does by default; biases are 0, and scales of norms 1."""
    if len(shape) > 1:
        return jax.nn.initializers.lecun_normal()(key, shape)
    return jnp.full(shape, float("scale" in name))


ENTRY = CodeEntry(
    lambda shape, variables, config: parity_model(
        shape, variables, config.parity_start
    ),
    trained=True,
)
