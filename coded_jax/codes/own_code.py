"""Codes that are functions of the user's own, checked where they are built."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from coded_jax import splitting
from coded_jax.checks import first_line, is_integer, require
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
        names = ("k", "r", "piece", "share")
        sizes = ", ".join(f"{key}={getattr(shape, key)}" for key in names)
        raise ValueError(
            f"code: {name} fails for {sizes} ({first_line(error)})"
        ) from error
    if not isinstance(code, Code):
        raise ValueError(
            f"code: {name} gives a {type(code).__name__}, a coded_jax.Code accepted"
        )
    require_quorum(code.quorum, shape.k, shape.n, f"code: quorum of {name}")
    fills = code.fills
    fits = fills is None or (is_integer(fills) and 1 <= fills <= shape.k)
    require(f"code: fills of {name}", fills, fits, f"1..{shape.k}, or None for all,")

    def encode(params: PyTree, pieces: jax.Array) -> jax.Array:
        return code.encode(params, pieces).astype(pieces.dtype)

    def decode(
        params: PyTree, features: jax.Array, available: jax.Array, *guide: jax.Array
    ) -> jax.Array:
        arrived = available[:, :, None, None, None]
        features = jnp.where(arrived, features, 0)
        available = jnp.broadcast_to(available, features.shape[:2])
        return code.decode(params, features, available, *guide).astype(features.dtype)

    lossy = not _require_sound(name, code, shape).exact
    return code._replace(encode=encode, decode=decode, lossy=lossy)


def _require_sound(name: str, code: Code, shape: CodeShape) -> _Kept:
    """Checks the shapes of what a code computes, and runs it on random numbers."""
    shaped = lambda *sizes: jax.ShapeDtypeStruct(sizes, jnp.float32)
    key = jax.eval_shape(jax.random.key, 0)
    pieces = shaped(shape.k, BATCH, *shape.piece)
    features = shaped(shape.n, BATCH, *shape.result(code.uncut))
    available = jax.ShapeDtypeStruct((shape.n, BATCH), jnp.bool_)
    params = _shapes_of(name, "init", code.init, key)
    queries = _shapes_of(name, "encode", code.encode, params, pieces)
    _require_form(name, "encode", queries, (shape.n, BATCH, *shape.piece))
    guide = (pieces,) if code.guided else ()
    inputs = (params, features, available, *guide)
    shares = _shapes_of(name, "decode", code.decode, *inputs)
    _require_form(name, "decode", shares, (shape.k, BATCH, *shape.share))
    kept = _try(name, code, shape, perturbed=True)
    if kept is None:  # other parameters than those of `init` may be out of range
        kept = _try(name, code, shape, perturbed=False) or _Kept({}, False, False)
    for i, piece in kept.changed_pieces.items():
        raise ValueError(
            f"code: query {i} of {name} is not data piece {piece} (tried with "
            "parameters near those of init): let it be that, or say of each query "
            "which one it is, and None of mixtures, by quorum=Quorum('any_k', copies)"
        )
    accepted = (
        "False, since decode changes shares that arrived (tried with parameters near "
        "those of init),"
    )
    holds = kept.shares or not code.systematic
    require(f"code: systematic of {name}", code.systematic, holds, accepted)
    return kept


class _Kept(NamedTuple):
    """Result of a trial of a code.

    Attributes:
      changed_pieces: queries that are not the pieces that `quorum` says, and these.
      shares: whether `decode` gives the shares that arrived as they are.
      exact: whether queries and shares are so bit for bit.
    """

    changed_pieces: dict[int, int]
    shares: bool
    exact: bool


def _try(name: str, code: Code, shape: CodeShape, perturbed: bool) -> _Kept | None:
    """Runs a code with one lost result; None where its numbers are not finite.

    The parameters of `init` alone would hide that sums which begin as the pieces are
    learned. They stay near, and pieces and features are as after a ReLU, since a code
    may need that.
    """
    random = np.random.default_rng(0)
    draw = lambda *sizes: random.uniform(size=sizes).astype(np.float32)
    pieces = draw(shape.k, BATCH, *shape.piece)
    features = draw(shape.n, BATCH, *shape.result(code.uncut))
    arrived = np.ones((shape.n, BATCH), bool)
    arrived[0, 1], features[0, 1] = False, 0

    @jax.jit
    def run(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        params = code.init(key)
        if perturbed:
            params = jax.tree.map(_near, params)
        given = jnp.asarray(pieces)
        guide = (given,) if code.guided else ()
        results = (jnp.asarray(features), jnp.asarray(arrived))
        return code.encode(params, given), code.decode(params, *results, *guide)

    try:
        # Also where a pipeline is built inside of a traced function.
        with jax.ensure_compile_time_eval(), jax.debug_nans(False):
            queries, shares = map(np.asarray, run(jax.random.key(0)))
    except jax.errors.TracerArrayConversionError:
        # It closes over traced values, so there are no numbers.
        return _Kept({}, True, False)
    except Exception as error:  # a function of the user's raises anything
        raise ValueError(f"code: {name} fails ({first_line(error)})") from error
    copies = enumerate(pieces_of(code.quorum, shape.k, shape.n))
    sent = {i: piece for i, piece in copies if piece is not None}
    data = arrived[: shape.k]
    kept = shares[data]
    if not all(np.isfinite(x).all() for x in (kept, *(queries[i] for i in sent))):
        return None
    changed = {i: p for i, p in sent.items() if not _alike(queries[i], pieces[p])}
    returned = features[: shape.k]
    if code.uncut:
        returned = np.asarray(splitting.cut(shape.plan, returned))
    same = [np.array_equal(queries[i], pieces[p]) for i, p in sent.items()]
    exact = all(same) and np.array_equal(kept, returned[data])
    return _Kept(changed, _alike(kept, returned[data]), exact)


def _near(x: jax.Array) -> jax.Array:
    """Returns other real numbers near `x`: 0.5 stays in 0..1, -1 is not moved to 0."""
    return x * 1.1 + 0.07 if jnp.issubdtype(x.dtype, jnp.floating) else x


def _shapes_of(
    name: str, function: str, f: Callable[..., PyTree], *inputs: Any
) -> PyTree:
    try:
        return jax.eval_shape(f, *inputs)
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
