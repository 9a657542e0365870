"""Codes that are functions of the user's own, checked where they are built."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from coded_jax import splitting
from coded_jax.checks import first_line, is_integer, require
from coded_jax.codes.quorum import NAMES, pieces_of
from coded_jax.types import Code, CodeShape, PyTree, Quorum

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
    names = ("k", "r", "piece", "share")
    sizes = ", ".join(f"{key}={getattr(shape, key)}" for key in names)
    with _blaming(f"{name} fails for {sizes}"):
        code = make(shape)
    if not isinstance(code, Code):
        raise ValueError(
            f"code: {name} gives a {type(code).__name__}, a coded_jax.Code accepted"
        )
    k, n, fills = shape.k, shape.n, code.traits.fills
    _require_quorum(f"code: quorum of {name}", code.quorum, k, n)
    fits = fills is None or (is_integer(fills) and 1 <= fills <= k)
    require(f"code: fills of {name}", fills, fits, f"1..{k}, or None for all,")
    _require_shapes(name, code, shape)
    trial = _try(name, code, shape, perturbed=True)
    if trial is None:  # other parameters than those of `init` may be out of range
        trial = _try(name, code, shape, perturbed=False) or _Trial({}, False, False)
    for i, piece in trial.changed_pieces.items():
        raise ValueError(
            f"code: query {i} of {name} is not data piece {piece} (tried with "
            "parameters near those of init): let it be that, or say of each query "
            "which one it is, and None of mixtures, by quorum=Quorum('any_k', copies)"
        )
    accepted = (
        "False, since decode changes shares that arrived (tried with parameters near "
        "those of init),"
    )
    holds = trial.keeps_shares or not code.systematic
    require(f"code: systematic of {name}", code.systematic, holds, accepted)

    def encode(params: PyTree, pieces: jax.Array) -> jax.Array:
        return code.encode(params, pieces).astype(pieces.dtype)

    def decode(
        params: PyTree, features: jax.Array, available: jax.Array, *guide: jax.Array
    ) -> jax.Array:
        arrived = available[:, :, None, None, None]
        features = jnp.where(arrived, features, 0)
        available = jnp.broadcast_to(available, features.shape[:2])
        return code.decode(params, features, available, *guide).astype(features.dtype)

    traits = code.traits._replace(lossy=not trial.exact)
    return code._replace(encode=encode, decode=decode, traits=traits)


@contextlib.contextmanager
def _blaming(failure: str) -> Iterator[None]:
    """Turns any error of a function of the user's into one line."""
    try:
        yield
    except Exception as error:
        raise ValueError(f"code: {failure} ({first_line(error)})") from error


def _require_quorum(name: str, quorum: Any, k: int, n: int) -> None:
    known = isinstance(quorum, Quorum) and quorum.name in NAMES
    require(name, quorum, known, f"a Quorum named one of {list(NAMES)}")
    copies, accepted = quorum.copies, (None, *range(k))
    fits = copies is None or (
        isinstance(copies, tuple)
        and len(copies) == n
        and all(piece in accepted for piece in copies)
    )
    wording = f"as copies a tuple of {n}, each None or in 0..{k - 1},"
    require(name, quorum, fits, wording)


def _require_shapes(name: str, code: Code, shape: CodeShape) -> None:
    """Checks the shapes and dtypes of what a code computes."""
    shaped = lambda *sizes: jax.ShapeDtypeStruct(sizes, jnp.float32)
    pieces = shaped(shape.k, BATCH, *shape.piece)
    features = shaped(shape.n, BATCH, *shape.result(code.traits.uncut))
    available = jax.ShapeDtypeStruct((shape.n, BATCH), jnp.bool_)
    guide = (pieces,) if code.traits.guided else ()
    with _blaming(f"init of {name} fails"):
        params = jax.eval_shape(code.init, jax.eval_shape(jax.random.key, 0))
    with _blaming(f"encode of {name} fails"):
        queries = jax.eval_shape(code.encode, params, pieces)
    with _blaming(f"decode of {name} fails"):
        shares = jax.eval_shape(code.decode, params, features, available, *guide)
    for function, output, accepted in (
        ("encode", queries, [shape.n, BATCH, *shape.piece]),
        ("decode", shares, [shape.k, BATCH, *shape.share]),
    ):
        sizes = getattr(output, "shape", None)
        if sizes != tuple(accepted):
            text = type(output).__name__ if sizes is None else list(sizes)
            raise ValueError(
                f"code: {function} of {name} gives {text} for {BATCH} images, "
                f"{accepted} accepted"
            )
        if not jnp.issubdtype(output.dtype, jnp.floating):
            raise ValueError(
                f"code: {function} of {name} gives {output.dtype}, real numbers "
                "accepted"
            )


class _Trial(NamedTuple):
    """The outcome of a code on random numbers.

    Attributes:
      changed_pieces: queries that are not the pieces that `quorum` says, and these.
      keeps_shares: whether `decode` gives the shares that arrived as they are.
      exact: whether queries and shares are so bit for bit.
    """

    changed_pieces: dict[int, int]
    keeps_shares: bool
    exact: bool


def _try(name: str, code: Code, shape: CodeShape, perturbed: bool) -> _Trial | None:
    """Runs a code with one lost result; None where its numbers are not finite.

    The parameters of `init` alone would hide that sums which begin as the pieces are
    learned. They stay near, and pieces and features are as after a ReLU, since a code
    may need that.
    """
    random = np.random.default_rng(0)
    draw = lambda *sizes: random.uniform(size=sizes).astype(np.float32)
    pieces = draw(shape.k, BATCH, *shape.piece)
    features = draw(shape.n, BATCH, *shape.result(code.traits.uncut))
    arrived = np.ones((shape.n, BATCH), bool)
    arrived[0, 1], features[0, 1] = False, 0

    @jax.jit
    def run(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        params = code.init(key)
        if perturbed:
            params = jax.tree.map(_near, params)
        data, results, mask = map(jnp.asarray, (pieces, features, arrived))
        guide = (data,) if code.traits.guided else ()
        shares = code.decode(params, results, mask, *guide)
        return code.encode(params, data), shares

    with _blaming(f"{name} fails"):
        try:
            # Also where a pipeline is built inside of a traced function.
            with jax.ensure_compile_time_eval(), jax.debug_nans(False):
                queries, shares = map(np.asarray, run(jax.random.key(0)))
        except jax.errors.TracerArrayConversionError:
            # It closes over traced values, so there are no numbers.
            return _Trial({}, True, False)
    copies = enumerate(pieces_of(code.quorum, shape.k, shape.n))
    sent = {i: piece for i, piece in copies if piece is not None}
    data = arrived[: shape.k]
    kept, returned = shares[data], features[: shape.k]
    if not all(np.isfinite(x).all() for x in (kept, *(queries[i] for i in sent))):
        return None
    if code.traits.uncut and shape.plan is not None:
        returned = np.asarray(splitting.cut(shape.plan, returned))
    alike = lambda x, y: np.allclose(x, y, rtol=TOLERANCE, atol=TOLERANCE)
    changed = {i: p for i, p in sent.items() if not alike(queries[i], pieces[p])}
    same = [np.array_equal(queries[i], pieces[p]) for i, p in sent.items()]
    exact = all(same) and np.array_equal(kept, returned[data])
    return _Trial(changed, alike(kept, returned[data]), exact)


def _near(x: jax.Array) -> jax.Array:
    """Returns other real numbers near `x`: 0.5 stays in 0..1, -1 is not moved to 0."""
    return x * 1.1 + 0.07 if jnp.issubdtype(x.dtype, jnp.floating) else x
