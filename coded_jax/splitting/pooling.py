"""Cutting a network where it pools: behind that, nothing depends on the size of images.

The cut is in the network's jaxpr, before the first operation that all else goes through
by one value whose shape is the same for larger and smaller images. What is before it
runs on images of any size, what is behind it takes what was pooled.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from coded_jax.splitting import flattening
from coded_jax.splitting.flattening import BATCH, Flat
from coded_jax.types import Block, PyTree

Shape = tuple[int, int, int]
Function = Callable[[PyTree, jax.Array], Any]


@dataclasses.dataclass(frozen=True)
class _Half:
    """One of the two halves of a network; a function that can be hashed.

    Attributes:
      whole: the network, `(variables, x [B, H, W, C]) -> y`.
      shape: `(H, W, C)` of what the second half would be given by the first.
      cut: operations that depend on the images, before the cut.
      second: whether it is that behind the cut.
    """

    whole: Function
    shape: Shape
    cut: int
    second: bool

    def __call__(self, variables: PyTree, x: jax.Array) -> jax.Array:
        shape = self.shape if self.second else x.shape[1:]
        flat = flattening.flatten(self.whole, variables, shape, x.shape[0])
        values = flat.constants(jax.tree.leaves(variables))
        flattening.run(flat.constant, values)
        (pooled,) = _live(flat, self.cut)
        if self.second:
            values[pooled] = x.reshape(pooled.aval.shape).astype(pooled.aval.dtype)
            flattening.run(flat.dynamic[self.cut :], values)
            return values[flat.results[0]]
        values[flat.image] = x.astype(flat.image.aval.dtype)
        flattening.run(flat.dynamic[: self.cut], values)
        return values[pooled].reshape(x.shape[0], 1, 1, -1).astype(x.dtype)


def cut_at_pooling(
    whole: Function, variables: PyTree, shape: Shape, smaller: Shape
) -> tuple[Block, Function] | None:
    """Cuts a network, or a head, behind its pooling.

    Args:
      whole: `(variables, x [B, H, W, C]) -> y`.
      variables: arrays or shapes (`jax.ShapeDtypeStruct`).
      shape: `(H, W, C)` of the whole image, or of its features.
      smaller: that of a smaller one.

    Returns:
      The function before the cut, `(variables, x [B, H, W, C]) -> [B, 1, 1, Q]` of any
      size, and that behind it, `(variables, [B, 1, 1, Q]) -> y`; None where the
      network does not pool, or fails for the smaller size.
    """
    try:
        flats = [
            flattening.flatten(whole, variables, *sizes)
            for sizes in ((shape, BATCH), (shape, BATCH + 1), (smaller, BATCH))
        ]
    except Exception:  # as of a dense layer over all positions
        return None
    names = [[eqn.primitive.name for eqn in flat.dynamic] for flat in flats]
    if any(own != names[0] for own in names):
        return None
    for cut in range(1, len(names[0])):
        lives = [_live(flat, cut) for flat in flats]
        if any(len(live) != 1 for live in lives):
            continue
        one, more, small = (live.pop().aval for live in lives)
        batches = one.shape[:1] == (BATCH,) and more.shape == (
            BATCH + 1,
            *one.shape[1:],
        )
        fewer = math.prod(one.shape[1:]) < math.prod(shape)
        real = jnp.issubdtype(one.dtype, jnp.floating)
        if batches and fewer and real and one.shape == small.shape:
            while cut + 1 < len(names[0]) and _scales(flats[0].dynamic[cut]):
                cut += 1  # a sum becomes a mean, of any number of positions
            halves = [_Half(whole, shape, cut, second) for second in (False, True)]
            return halves[0], halves[1]
    return None


def _scales(eqn: Any) -> bool:
    """Returns whether an operation divides or multiplies by a number."""
    return eqn.primitive.name in ("div", "mul") and hasattr(eqn.invars[1], "val")


def _live(flat: Flat, cut: int) -> set[Any]:
    """Returns the values made before a cut that are read behind it."""
    made = {v for eqn in flat.dynamic[:cut] for v in eqn.outvars} | {flat.image}
    read = {
        v for eqn in flat.dynamic[cut:] for v in eqn.invars if not hasattr(v, "val")
    }
    return made & (read | flattening.variables_among(flat.results))
