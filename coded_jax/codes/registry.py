"""The codes that are known by name."""

from __future__ import annotations

from collections.abc import Callable

from coded_jax.checks import require
from coded_jax.codes import baselines, curves, learned, linear, parity_model
from coded_jax.codes.entry import CodeEntry, from_shape
from coded_jax.codes.learned_config import LearnedConfig
from coded_jax.codes.own_code import own_code
from coded_jax.types import Code, CodeShape, PyTree

LEARNED, NO_PARITY = "learned", "no_parity"
"""The code and the ablation of it that tables compare."""

CODES: dict[str, CodeEntry] = {
    LEARNED: learned.ENTRY,
    NO_PARITY: baselines.NO_PARITY,
    "parity_model": parity_model.ENTRY,
    "uncoded": from_shape(
        linear.uncoded, "no code, and no answer where a piece is lost"
    ),
    "zero_fill": from_shape(
        linear.zero_fill, "no code, zeros in place of what is lost"
    ),
    "mean_fill": from_shape(
        baselines.mean_fill,
        "no code, the training images' mean in place of what is lost",
    ),
    "replication": from_shape(
        linear.replication, "copies of the pieces", fewest_pieces=1
    ),
    "mds": from_shape(
        linear.mds, "the Reed-Solomon code, which is exact for linear networks"
    ),
    "addition": from_shape(linear.addition, "sums of the pieces"),
    "berrut": from_shape(curves.berrut, "pieces on a rational curve"),
    "spline": from_shape(curves.spline, "pieces on splines"),
}

AnyCode = str | Callable[[CodeShape], Code]
"""A code of the registry by its name, or a function that builds one."""


def make_code(
    code: AnyCode, shape: CodeShape, variables: PyTree, config: LearnedConfig
) -> Code:
    """Builds a code.

    Args:
      code: its name in `CODES`, or a function `CodeShape -> Code`.
      shape: the sizes.
      variables: of the base model; arrays or shapes (`jax.ShapeDtypeStruct`).
      config: recipe and networks, of codes that have them.

    Raises:
      ValueError: there is none of that name, it cannot be built with these settings,
        or the function is refused, see `own_code`.
    """
    if not isinstance(code, str):
        return own_code(name_of(code), code, shape)
    require("code", code, code in CODES, f"one of {list(CODES)}")
    return CODES[code].make(shape, variables, config)


def is_code(code: object) -> bool:
    """Returns whether `code` may stand where a code is named."""
    return code in CODES if isinstance(code, str) else callable(code)


def name_of(code: AnyCode) -> str:
    """Returns the name of a code in results: `mds`, or `module:function`.

    Raises:
      ValueError: a callable without a name of its own, as a `functools.partial`.
    """
    if isinstance(code, str):
        return code
    name = getattr(code, "__qualname__", None)
    require("code", code, name is not None, "a name, or a function with `def`,")
    return f"{code.__module__}:{name}"


def entry_of(code: AnyCode) -> CodeEntry:
    """Returns the registry entry of a code; of a function, or its name in results, an
    entry that says only that its results may depend on a training."""
    if isinstance(code, str) and code in CODES:
        return CODES[code]
    return CodeEntry(
        lambda shape, variables, config: make_code(code, shape, variables, config),
        trained=True,
        fewest_pieces=1,
    )
