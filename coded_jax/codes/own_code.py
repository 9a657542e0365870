"""Codes that are functions of the user's own, checked where they are built."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from coded_jax import splitting
from coded_jax.checks import first_line, require, require_form
from coded_jax.codes.quorum import NAMES, pieces_of
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
    names = ("k", "r", "piece", "share")
    sizes = ", ".join(f"{key}={getattr(shape, key)}" for key in names)
    with _blaming(f"{name} fails for {sizes}"):
        code = make(shape)
    require(f"code: result of {name}", code, isinstance(code, Code), "a coded_jax.Code")
    k, n, quorum = shape.k, shape.n, code.quorum
    copies = pieces_of(quorum, k, n)
    fits = quorum.name in NAMES and len(copies) == n
    fits = fits and all(piece in (None, *range(k)) for piece in copies)
    accepted = f"a name of {list(NAMES)} and {n} copies, each None or in 0..{k - 1},"
    require(f"code: quorum of {name}", quorum, fits, accepted)
    _require_shapes(name, code, shape)
    exact = _try(name, code, shape)

    def encode(params: PyTree, pieces: jax.Array) -> jax.Array:
        return code.encode(params, pieces).astype(pieces.dtype)

    def decode(
        params: PyTree, features: jax.Array, available: jax.Array, *guide: jax.Array
    ) -> jax.Array:
        arrived = available[:, :, None, None, None]
        features = jnp.where(arrived, features, 0)
        available = jnp.broadcast_to(available, features.shape[:2])
        return code.decode(params, features, available, *guide).astype(features.dtype)

    traits = code.traits._replace(lossy=not exact)
    return code._replace(encode=encode, decode=decode, traits=traits)


@contextlib.contextmanager
def _blaming(failure: str) -> Iterator[None]:
    """Turns any error of a function of the user's into one line."""
    try:
        yield
    except Exception as error:
        raise ValueError(f"code: {failure} ({first_line(error)})") from error


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
        real = jnp.issubdtype(getattr(output, "dtype", bool), jnp.floating)
        fits = real and [*output.shape] == accepted
        accepted = f"an array {accepted} of real numbers"
        require_form(f"code: {function} of {name}", output, fits, accepted)


def _try(name: str, code: Code, shape: CodeShape) -> bool:
    """Runs a code with one lost result, on random numbers.

    The parameters of `init` alone would hide that sums which begin as the pieces are
    learned. They stay near, and pieces and features are as after a ReLU, since a code
    may need that.

    Returns:
      Whether data pieces and shares that arrived are passed on bit for bit.

    Raises:
      ValueError: the code fails, or `quorum` or `systematic` is not true of it.
    """
    random = np.random.default_rng(0)
    draw = lambda *sizes: random.uniform(size=sizes).astype(np.float32)
    pieces = draw(shape.k, BATCH, *shape.piece)
    features = draw(shape.n, BATCH, *shape.result(code.traits.uncut))
    arrived = np.ones((shape.n, BATCH), bool)
    arrived[0, 1], features[0, 1] = False, 0

    @functools.partial(jax.jit, static_argnums=1)
    def run(key: jax.Array, perturbed: bool) -> tuple[jax.Array, jax.Array]:
        params = code.init(key)
        if perturbed:
            params = jax.tree.map(_near, params)
        data, results, mask = map(jnp.asarray, (pieces, features, arrived))
        guide = (data,) if code.traits.guided else ()
        shares = code.decode(params, results, mask, *guide)
        return code.encode(params, data), shares

    copies = enumerate(pieces_of(code.quorum, shape.k, shape.n))
    sent = {i: piece for i, piece in copies if piece is not None}
    data = arrived[: shape.k]
    for perturbed in (True, False):  # parameters other than of `init` may be invalid
        with _blaming(f"{name} fails"):
            try:
                # Also where a pipeline is built inside of a traced function.
                with jax.ensure_compile_time_eval(), jax.debug_nans(False):
                    outputs = run(jax.random.key(0), perturbed)
                    queries, shares = map(np.asarray, outputs)
            except jax.errors.TracerArrayConversionError:
                return False  # it closes over traced values: there are no numbers
        kept = shares[data]
        if all(np.isfinite(x).all() for x in (kept, *(queries[i] for i in sent))):
            break
    else:
        return False
    returned = features[: shape.k]
    if code.traits.uncut and shape.plan is not None:
        returned = np.asarray(splitting.cut(shape.plan, returned))
    alike = lambda x, y: np.allclose(x, y, rtol=TOLERANCE, atol=TOLERANCE)
    tried = "(tried with parameters near those of init)"
    for i, piece in sent.items():
        if not alike(queries[i], pieces[piece]):
            raise ValueError(
                f"code: query {i} of {name} is not data piece {piece} {tried}: let it "
                "be that, or say of each query which one it is, and None of mixtures, "
                "by quorum=Quorum('any_k', copies)"
            )
    holds = not code.systematic or alike(kept, returned[data])
    accepted = f"False, since decode changes shares that arrived {tried},"
    require(f"code: systematic of {name}", code.systematic, holds, accepted)
    same = all(np.array_equal(queries[i], pieces[p]) for i, p in sent.items())
    return same and np.array_equal(kept, returned[data])


def _near(x: jax.Array) -> jax.Array:
    """Returns other real numbers near `x`: 0.5 stays in 0..1, -1 is not moved to 0."""
    return x * 1.1 + 0.07 if jnp.issubdtype(x.dtype, jnp.floating) else x
