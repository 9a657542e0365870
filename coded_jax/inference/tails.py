"""The tail of the network, and a copy of it for features that were reconstructed.

When nothing is lost, everything is the base model. When a data result was lost, a
second copy of what is not coded, the blocks after the last coded stage and the head,
may answer, which is trained with the code on what its decoders reconstruct.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from coded_jax.splitting.flattening import CALLS
from coded_jax.types import PyTree, State

STEP = 0.1
"""Times what is trained is added to the base model's variables: Adam moves each number
by about the learning rate, whatever its gradient, and a network that is trained already
needs smaller steps than one that begins anew."""


class TailCopy(NamedTuple):
    """A second copy of a tail, with variables of its own.

    Attributes:
      init: `() -> params`, zeros; the copy's step times them is added to the base
        model's variables. Where the tail reads no variable, or one that is not trained,
        it is a single number.
      trained: whether each of the base model's variables has a copy.
      bytes: of the variables that it has twice.
      settled: whether `params` are the sums already, see `settle`.
    """

    init: Callable[[], PyTree]
    trained: tuple[bool, ...]
    bytes: int
    settled: bool = False

    def variables(self, params: PyTree, frozen: PyTree) -> PyTree:
        """Returns those of the base model, with the copy's in their places."""
        leaves, structure = jax.tree.flatten(frozen)
        own = zip(self.trained, jax.tree.leaves(params), leaves, strict=True)
        changed = [self._sum(more, x) if trained else x for trained, more, x in own]
        return jax.tree.unflatten(structure, changed)

    def settle(self, params: PyTree, frozen: PyTree) -> tuple[TailCopy, PyTree]:
        """Returns the copy and its params with the sums at hand, for those who answer
        many requests: nothing is added again for each."""
        leaves, structure = jax.tree.flatten(params)
        own = zip(self.trained, leaves, jax.tree.leaves(frozen), strict=True)
        sums = [self._sum(more, x) if trained else more for trained, more, x in own]
        return self._replace(settled=True), jax.tree.unflatten(structure, sums)

    def _sum(self, more: jax.Array, x: jax.Array) -> jax.Array:
        return more if self.settled else x + (STEP * more).astype(x.dtype)


def copy_tail(
    run_tail: Callable[[PyTree, State], PyTree], variables: PyTree, decoded: State
) -> TailCopy:
    """Makes a copy of a tail, which begins as the same.

    Args:
      run_tail: `Pipeline.run_tail`.
      variables: of the base model; arrays or shapes (`jax.ShapeDtypeStruct`).
      decoded: shapes of what the tail is given, for any batch.
    """
    leaves, structure = jax.tree.flatten(variables)
    jaxpr = jax.make_jaxpr(lambda *args: run_tail(*args)[1])(variables, decoded).jaxpr
    read = _read(jaxpr, [True] * len(jaxpr.outvars))[: len(leaves)]
    paths, _ = jax.tree_util.tree_flatten_with_path(variables)
    # Of a network that is trained already, real numbers change, but no running means.
    trained = [
        is_read
        and jnp.issubdtype(leaf.dtype, jnp.floating)
        and "batch_stats" not in jax.tree_util.keystr(path)
        for is_read, (path, leaf) in zip(read, paths, strict=True)
    ]
    copied = [leaf.shape for own, leaf in zip(trained, leaves, strict=True) if own]

    def init() -> PyTree:
        shapes = iter(copied)
        zeros = [jnp.zeros(next(shapes) if own else ()) for own in trained]
        return jax.tree.unflatten(structure, zeros)

    return TailCopy(init, tuple(trained), 4 * sum(map(math.prod, copied)))


def _read(jaxpr: Any, wanted: list[bool]) -> list[bool]:
    """Returns the mask of inputs of a jaxpr that the wanted outputs depend on."""
    # Others are numbers in the jaxpr.
    named = lambda atoms: {atom for atom in atoms if not hasattr(atom, "val")}
    live = named(itertools.compress(jaxpr.outvars, wanted))
    for eqn in reversed(jaxpr.eqns):
        outputs = [atom in live for atom in eqn.outvars]
        if not any(outputs):
            continue
        inner = eqn.params.get(CALLS.get(eqn.primitive.name, ""))
        inner = getattr(inner, "jaxpr", inner)
        if inner is not None and len(inner.invars) == len(eqn.invars):
            live |= named(itertools.compress(eqn.invars, _read(inner, outputs)))
        else:
            live |= named(eqn.invars)
    return [atom in live for atom in jaxpr.invars]
