"""The codes that are known by name, and the facts that others need of them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

from coded_jax.checks import require
from coded_jax.codes import curves, linear, views
from coded_jax.codes.learned import learned_code, no_parity
from coded_jax.codes.learned_config import LearnedConfig
from coded_jax.codes.own_code import own_code
from coded_jax.codes.parity_model import parity_model
from coded_jax.types import Code, CodeShape, PyTree, ViewPlan


class CodeEntry(NamedTuple):
    """A registered code.

    Attributes:
      make: `(shape, variables, config) -> Code`, with the variables of the base model
        (arrays, or `jax.ShapeDtypeStruct` for their shapes), and the recipe and
        networks of learned codes in `config`.
      trained: whether its results depend on a training.
      label: its name in tables, a format with the fields `code`, `recipe`, `encoder`
        and `decoder`; networks with their width, where one is set.
      title: likewise, in headings; networks without width.
      fewest_pieces: the least k that it is built for.
      meaning: a line for newcomers; empty for functions of the user's own.
      of_views: `(shape, config) -> Code` of views, see `types.ViewPlan`; None of
        codes that need
        pieces with exact shares.
    """

    make: Callable[[CodeShape, PyTree, LearnedConfig], Code]
    trained: bool = False
    label: str = "{code}"
    title: str = "{code} code"
    fewest_pieces: int = 2
    meaning: str = ""
    of_views: Callable[[CodeShape, LearnedConfig], Code] | None = None


def _from_shape(
    make: Callable[[CodeShape], Code], meaning: str, fewest_pieces: int = 2
) -> CodeEntry:
    """Returns the entry of a code that needs only its sizes and is not trained."""
    return CodeEntry(
        lambda shape, variables, config: make(shape),
        fewest_pieces=fewest_pieces,
        meaning=meaning,
    )


LEARNED, NO_PARITY = "learned", "no_parity"
"""The code and the ablation of it that tables compare."""

CODES: dict[str, CodeEntry] = {
    LEARNED: CodeEntry(
        lambda shape, variables, config: learned_code(shape, config),
        trained=True,
        label="{recipe} {encoder} / {decoder}",
        title="{recipe} recipe, {encoder} encoder, {decoder} decoder",
        meaning="parity pieces and what decodes them, both trained",
        of_views=views.views_code,
    ),
    NO_PARITY: CodeEntry(
        lambda shape, variables, config: no_parity(shape, learned_code(shape, config)),
        trained=True,
        label="{code} {decoder}",
        title="{recipe} recipe, {encoder} encoder, {decoder} decoder",
        meaning="as learned, but without parity pieces: its decoder guesses",
        of_views=views.without_parity,
    ),
    "parity_model": CodeEntry(
        lambda shape, variables, config: parity_model(
            shape, variables, config.parity_start, config.parity_pieces
        ),
        trained=True,
        meaning="sums of pieces, on networks that are trained for them",
    ),
    "uncoded": _from_shape(
        linear.uncoded, "no code, and no answer where a piece is lost"
    ),
    "zero_fill": _from_shape(
        linear.zero_fill, "no code, zeros in place of what is lost"
    ),
    "mean_fill": _from_shape(
        linear.mean_fill, "no code, the training images' mean in place of what is lost"
    ),
    "replication": _from_shape(
        linear.replication, "copies of the pieces", fewest_pieces=1
    ),
    "mds": _from_shape(
        linear.mds, "the Reed-Solomon code, which is exact for linear networks"
    ),
    "addition": _from_shape(linear.addition, "sums of the pieces"),
    "berrut": _from_shape(curves.berrut, "pieces on a rational curve"),
    "spline": _from_shape(curves.spline, "pieces on splines"),
    "mean_of_views": CodeEntry(
        lambda shape, variables, config: views.mean_of_views(shape, config),
        meaning="views alone: the mean of the results that arrived",
        of_views=views.mean_of_views,
    ),
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
    if isinstance(shape.plan, ViewPlan):
        of_views = {name: x.of_views for name, x in CODES.items() if x.of_views}
        accepted = f"one of {list(of_views)} with split=views"
        require("code", name_of(code), code in of_views, accepted)
        return of_views[code](shape, config)
    if not isinstance(code, str):
        return own_code(name_of(code), code, shape)
    require("code", code, code in CODES, f"one of {list(CODES)}")
    return CODES[code].make(shape, variables, config)


def is_code(code: object) -> bool:
    """Returns whether `code` may stand where a code is named."""
    return code in CODES if isinstance(code, str) else callable(code)


def name_of(code: AnyCode) -> str:
    """Returns the name of a code in results: `mds`, or `module:function`."""
    return code if isinstance(code, str) else f"{code.__module__}:{code.__qualname__}"


def entry_of(code: AnyCode) -> CodeEntry:
    """Returns the registry entry of a code; of a function, or its name in results, an
    entry that says only that its results may depend on a training."""
    if isinstance(code, str) and code in CODES:
        return CODES[code]
    make = functools.partial(make_code, code)
    return CodeEntry(make, trained=True, fewest_pieces=1)
