"""Codes that are functions of the user's own, checked where they are built."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from coded_jax.checks import first_line, require
from coded_jax.codes.quorum import pieces_of, require_quorum
from coded_jax.types import Code, CodeShape, PyTree

BATCH = 2
TOLERANCE = 0.05  # accelerators multiply matrices with three digits


def own_code(name: str, make: Callable[[CodeShape], Code], shape: CodeShape) -> Code:
    """Builds a code from a function and checks that it computes what it says.

    A decoder of the wrong shape would else go unnoticed, since merging the shares drops
    what is too much; and one that reads lost results would look as if nothing were
    lost. So its `decode` is given zeros in their place. It is given a mask `[n, B]`,
    whatever that of the inference is, and its results get the dtype of the features.

    Args:
      name: of the code, for errors.
      make: builds it.
      shape: the sizes.

    Raises:
      ValueError: the function gives no `Code`; `init`, `encode` or `decode` fails, or
        gives arrays of other shapes than `Code` says; or `quorum` or `systematic` is
        not true of them.
    """
    try:
        code = make(shape)
    except Exception as error:  # a function of the user's raises anything
        sizes = ", ".join(f"{key}={size}" for key, size in shape._asdict().items())
        raise ValueError(
            f"code: {name} fails for {sizes} ({first_line(error)})"
        ) from error
    if not isinstance(code, Code):
        raise ValueError(
            f"code: {name} gives a {type(code).__name__}, a coded_jax.Code accepted"
        )
    require_quorum(code.quorum, shape.k, shape.n, f"code: quorum of {name}")

    def encode(params: PyTree, pieces: jax.Array) -> jax.Array:
        return code.encode(params, pieces).astype(pieces.dtype)

    def decode(params: PyTree, features: jax.Array, available: jax.Array) -> jax.Array:
        arrived = available[:, :, None, None, None]
        features = jnp.where(arrived, features, 0)
        available = jnp.broadcast_to(available, features.shape[:2])
        return code.decode(params, features, available).astype(features.dtype)

    _require_sound(name, code, shape)
    return code._replace(encode=encode, decode=decode)


def _require_sound(name: str, code: Code, shape: CodeShape) -> None:
    """Runs a code on random numbers, with other parameters than those of `init`.

    These alone would hide that sums which begin as the pieces are learned.
    """
    random = np.random.default_rng(0)
    draw = lambda *sizes: random.normal(size=sizes).astype(np.float32)
    is_real = lambda x: jnp.issubdtype(x.dtype, jnp.floating)
    params = _output(name, "init", code.init, jax.random.key(0))
    params = jax.tree.map(lambda x: x + 1 if is_real(x) else x, params)
    pieces = draw(shape.k, BATCH, *shape.piece)
    queries = _output(name, "encode", code.encode, params, pieces)
    _require_form(name, "encode", queries, (shape.n, BATCH, *shape.piece))
    for i, piece in enumerate(pieces_of(code.quorum, shape.k, shape.n)):
        if piece is not None and not _alike(queries[i], pieces[piece]):
            raise ValueError(
                f"code: query {i} of {name} is not data piece {piece} (tried with "
                "other parameters than those of init): let it be that, or say of each "
                "query which one it is, and None of mixtures, by "
                "quorum=Quorum('any_k', copies)"
            )
    arrived = np.ones((shape.n, BATCH), bool)
    arrived[0, 1] = False
    features = draw(shape.n, BATCH, *shape.share)
    features[0, 1] = 0
    shares = _output(name, "decode", code.decode, params, features, arrived)
    _require_form(name, "decode", shares, (shape.k, BATCH, *shape.share))
    data = arrived[: shape.k]
    kept = _alike(np.asarray(shares)[data], features[: shape.k][data])
    accepted = (
        "False, since decode changes shares that arrived (tried with other parameters "
        "than those of init),"
    )
    holds = kept or not code.systematic
    require(f"code: systematic of {name}", code.systematic, holds, accepted)


def _output(name: str, function: str, f: Callable[..., PyTree], *inputs: Any) -> PyTree:
    try:
        return jax.jit(f)(*inputs)
    except Exception as error:  # a function of the user's raises anything
        raise ValueError(
            f"code: {function} of {name} fails ({first_line(error)})"
        ) from error


def _require_form(
    name: str, function: str, output: PyTree, accepted: tuple[int, ...]
) -> None:
    shape = getattr(output, "shape", None)
    if shape != accepted:
        text = type(output).__name__ if shape is None else list(shape)
        raise ValueError(
            f"code: {function} of {name} gives {text} for {accepted[1]} images, "
            f"{list(accepted)} accepted"
        )
    if not jnp.issubdtype(output.dtype, jnp.floating):
        raise ValueError(
            f"code: {function} of {name} gives {output.dtype}, real numbers accepted"
        )


def _alike(x: Any, y: Any) -> bool:
    return np.allclose(x, y, rtol=TOLERANCE, atol=TOLERANCE)
