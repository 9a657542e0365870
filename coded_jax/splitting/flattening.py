"""A network as a list of operations, those that depend on the image apart from others.

Whoever takes a network apart traces it anew for every number of images and every dtype:
the operations keep their order, only their shapes differ.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from coded_jax.splitting.inlining import Values, inline
from coded_jax.types import PyTree

BATCH = 2
"""Images of a trace that plans are made of: an axis of 1 could be any."""


class Form(NamedTuple):
    """The form of an array: its shape, its dtype, and whether that is a weak one."""

    shape: tuple[int, ...]
    dtype: Any
    weak_type: bool = False

    def shape_struct(self) -> jax.ShapeDtypeStruct:
        """Returns the array's shape for JAX to trace."""
        return jax.ShapeDtypeStruct(self.shape, self.dtype, weak_type=self.weak_type)


def form_of(leaf: Any) -> Form:
    """Returns the form of an array, a shape or a number."""
    if not hasattr(leaf, "shape"):
        leaf = jnp.asarray(leaf)
    weak = bool(getattr(leaf, "weak_type", False))
    return Form(tuple(leaf.shape), leaf.dtype, weak)


def is_array(leaf: Any) -> bool:
    """Returns whether a leaf is an array or shape of numbers, bools or random keys."""
    if not (hasattr(leaf, "shape") and hasattr(leaf, "dtype")):
        return False
    kinds = (np.number, np.bool_, jax.dtypes.extended)
    return any(jnp.issubdtype(leaf.dtype, kind) for kind in kinds)


@dataclasses.dataclass(frozen=True, eq=False)
class Flat:
    """The operations of a network.

    Attributes:
      closed: its jaxpr, closed, see `inlining`; the image is the last input.
      dynamic: the equations whose results depend on the image and lead to the result.
      constant: those whose results depend on the variables alone.
    """

    closed: Any
    dynamic: list[Any]
    constant: list[Any]

    @property
    def image(self) -> Any:
        """The variable of the image."""
        return self.closed.jaxpr.invars[-1]

    @property
    def results(self) -> list[Any]:
        """The variables of the results."""
        return self.closed.jaxpr.outvars

    @property
    def weights(self) -> list[Any]:
        """The variables of the leaves of the network's variables."""
        return self.closed.jaxpr.invars[:-1]

    def constants(self, leaves: Sequence[Any]) -> Values:
        """Returns the values that are there before the image is."""
        jaxpr = self.closed.jaxpr
        values = dict(zip(jaxpr.constvars, self.closed.consts, strict=True))
        return values | dict(zip(self.weights, leaves, strict=True))


def flatten(
    f: Callable[[PyTree, jax.Array], Any],
    variables: PyTree,
    image_shape: tuple[int, int, int],
    batch: Any = BATCH,
    dtype: Any = "float32",
) -> Flat:
    """Traces a network for so many images, or looks up what was found before.

    Args:
      f: `(variables, [B, H, W, C]) -> result`.
      variables: arrays or shapes (`jax.ShapeDtypeStruct`).
      image_shape: `(H, W, C)`.
      batch: `B`.
      dtype: of the images.
    """
    leaves, structure = jax.tree.flatten(variables)
    forms = tuple(map(form_of, leaves))
    # The types of a jaxpr name the mesh, its operations the precision.
    context = (
        jax.sharding.get_abstract_mesh(),
        jax.config.jax_default_matmul_precision,  # type: ignore
    )
    return _flatten(f, structure, forms, image_shape, batch, jnp.dtype(dtype), context)


@functools.lru_cache(maxsize=64)
def _flatten(
    f: Callable[[PyTree, jax.Array], Any],
    structure: Any,
    forms: tuple[Form, ...],
    image_shape: tuple[int, int, int],
    batch: Any,
    dtype: jnp.dtype,
    context: Any,
) -> Flat:
    shapes = [form.shape_struct() for form in forms]
    image = jax.ShapeDtypeStruct((batch, *image_shape), dtype)
    closed = inline(f, jax.tree.unflatten(structure, shapes), image)
    varying = {closed.jaxpr.invars[-1]}  # with the image
    dynamic, constant = [], []
    for eqn in closed.jaxpr.eqns:
        depends = not varying.isdisjoint(variables_among(eqn.invars))
        (dynamic if depends else constant).append(eqn)
        if depends:
            varying.update(eqn.outvars)
    return Flat(closed, needed(dynamic, closed.jaxpr.outvars), constant)


def variables_among(atoms: Iterable[Any]) -> set[Any]:
    """Returns those that are no literals."""
    return {atom for atom in atoms if not hasattr(atom, "val")}


def needed(eqns: Sequence[Any], goals: Collection[Any]) -> list[Any]:
    """Returns the equations that lead to some variables, in their order."""
    wanted, chosen = variables_among(goals), []
    for eqn in reversed(eqns):
        if not wanted.isdisjoint(eqn.outvars):
            chosen.append(eqn)
            wanted |= variables_among(eqn.invars)
    return chosen[::-1]
