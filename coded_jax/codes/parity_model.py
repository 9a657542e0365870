"""ParM: the code is a sum, and the network of the parity worker is learned."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import jax
import jax.numpy as jnp

from coded_jax.checks import require
from coded_jax.codes.linear import addition
from coded_jax.types import Code, CodeShape, PyTree, Traits


def parity_model(
    shape: CodeShape, variables: PyTree, start: str = "base", pieces: str = "sums"
) -> Code:
    """Builds parity models with the addition code (Kosaian, Rashmi, Venkataraman 2019).

    Parity j is `sum_i (i+1)^j piece_i`, and its worker's network is trained to make
    `sum_i (i+1)^j share_i` of it, so that any k results decode by subtraction. Training
    minimises the error of the decoded shares, as of every code here; where r is 1 that
    error is the parity share's, as in ParM. The network is the base model with weights
    of its own, which start as the base model's (weight decay draws them back there)
    or, as in ParM, are drawn anew. Statistics of batch norms begin as the base model's;
    where groups of images are coded, the network gathers its own, see
    `training.losses`, else they stay. With several coded stages, each one has
    such networks of its own.

    Args:
      shape: the sizes.
      variables: of the base model; arrays or shapes (`jax.ShapeDtypeStruct`).
      start: `base` or `anew`.
      pieces: `sums` or, for r=1, `montage`: the parity piece shows all pieces, made
        smaller, as ParM's concatenating encoder does.

    Raises:
      ValueError: a montage of other sizes.

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

    if pieces == "montage":
        code = code._replace(encode=_montage(shape), traits=Traits())
    traits = code.traits._replace(parity_worker=worker)
    return code._replace(init=init, traits=traits)


def _montage(shape: CodeShape) -> Callable[[PyTree, jax.Array], jax.Array]:
    """Returns `encode` of a code whose parity piece is all pieces side by side, each of
    them the means of 1x2 pixels for k=2, and of 2x2 for k=4."""
    rows = {2: 1, 4: 2}.get(shape.k, 0)
    height, width, _ = shape.piece
    fits = bool(rows) and shape.r == 1 and not (height % rows or width % 2)
    accepted = "sums, or montage with k=2 or 4, r=1 and pieces of even height and width"
    require("parity_pieces", "montage", fits, f"{accepted},")

    def encode(params: PyTree, pieces: jax.Array) -> jax.Array:
        k, batch, h, w, channels = pieces.shape
        pixels = pieces.reshape((k, batch, h // rows, rows, w // 2, 2, channels))
        small = pixels.mean(axis=(3, 5)).reshape(
            (rows, 2, batch, h // rows, w // 2, -1)
        )
        placed = small.transpose((2, 0, 3, 1, 4, 5)).reshape((1, *pieces.shape[1:]))
        return jnp.concatenate([pieces, placed])

    return encode


def _is_statistic(path: tuple) -> bool:
    return "batch_stats" in jax.tree_util.keystr(path)


def _drawn(key: jax.Array, name: str, shape: tuple[int, ...]) -> jax.Array:
    """Draws kernels as Flax does by default; biases are 0, and scales of norms 1."""
    if len(shape) > 1:
        return jax.nn.initializers.lecun_normal()(key, shape)
    return jnp.full(shape, float("scale" in name))
