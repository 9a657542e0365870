"""A CNN of the user's own: functions and their variables, checked and told apart."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from coded_jax.checks import first_line, require
from coded_jax.types import BaseModel, Block, Dataset, PyTree


def own_base(
    blocks: Block | Sequence[Block],
    head: Callable[[PyTree, jax.Array], jax.Array],
    variables: PyTree,
    image_shape: tuple[int, int, int],
    classes: int,
) -> tuple[BaseModel, PyTree]:
    """Returns a base model made of functions, and its variables as arrays.

    Args:
      blocks: one function or several, see `BaseModel.blocks`.
      head: see `BaseModel.head`.
      variables: a pytree of arrays and numbers; real ones become float32.
      image_shape: `(H, W, C)`.
      classes: how many logits the head must give.

    Raises:
      ValueError: the variables are no arrays, a function fails for such images, or
        `head` does not give logits.
    """
    functions = (blocks,) if callable(blocks) else tuple(blocks)
    fits = len(functions) > 0 and all(map(callable, functions))
    require("blocks", blocks, fits, "a function, or one or more in a list,")
    arrays = _arrays(variables)
    base = BaseModel(lambda key, image_shape, classes: arrays, functions, head)
    images = jax.ShapeDtypeStruct((2, *image_shape), jnp.float32)
    features = _output("blocks", base.f_conv, arrays, images)
    logits = _output("head", base.head, arrays, features)
    if logits.shape != (2, classes):
        raise ValueError(
            f"head: gives {list(logits.shape)} for 2 images, [2, {classes}] accepted, "
            "the logits of the data set's classes"
        )
    return base, arrays


def _arrays(variables: PyTree) -> PyTree:
    """Returns arrays, with real numbers in float32."""

    def array(leaf: Any) -> jax.Array:
        leaf = jnp.asarray(leaf)
        real = jnp.issubdtype(leaf.dtype, jnp.floating)
        return leaf.astype(jnp.float32) if real else leaf

    try:
        return jax.tree.map(array, variables)
    except TypeError as error:
        raise ValueError(
            f"variables: a pytree of arrays and numbers accepted ({first_line(error)})"
        ) from error


def _output(name: str, f: Block, variables: PyTree, x: Any) -> Any:
    """Returns the shape and dtype of `f(variables, x)`."""
    try:
        return jax.eval_shape(f, variables, x)
    except Exception as error:  # a function of the user's raises anything
        raise ValueError(
            f"{name}: fails for float32 {list(x.shape)} ({first_line(error)})"
        ) from error


def fingerprint(base: BaseModel, variables: PyTree, dataset: Dataset) -> str:
    """Returns 16 hexadecimal digits that differ for other functions, variables or data.

    Functions are compared by their jaxprs, and by the constants that they close over.
    """
    digest = hashlib.sha256(str(jax.tree.structure(variables)).encode())
    x = jax.ShapeDtypeStruct((2, *dataset.image_shape), jnp.float32)
    arrays = []
    for f in (*base.blocks, base.head):
        jaxpr, x = jax.make_jaxpr(f, return_shape=True)(variables, x)
        # Functions print with their address, which is another in every process.
        digest.update(re.sub(r" at 0x[0-9a-f]+", "", str(jaxpr)).encode())
        arrays += jaxpr.consts
    parts = (dataset.train, dataset.validation, dataset.test)
    arrays += [array for part in parts for array in (part.images, part.labels)]
    for leaf in (*jax.tree.leaves(variables), *arrays):
        if isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(
            leaf.dtype, jax.dtypes.prng_key
        ):
            leaf = jax.random.key_data(leaf)
        array = np.ascontiguousarray(leaf)
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()[:16]
