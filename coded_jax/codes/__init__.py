"""Erasure codes: pairs of pure functions `encode` and `decode`; see `types.Code`.

A new code is a file with a `CodeShape -> Code` and a line in `CODES`.
"""

from __future__ import annotations

from typing import Any

from coded_jax.codes.baselines import mean_fill, no_parity
from coded_jax.codes.curves import berrut, spline
from coded_jax.codes.learned import DECODER_CHANNELS as DECODER_CHANNELS
from coded_jax.codes.learned import DECODERS as DECODERS
from coded_jax.codes.learned import ENCODERS as ENCODERS
from coded_jax.codes.learned import SUMS as SUMS
from coded_jax.codes.learned import learned_code as learned_code
from coded_jax.codes.linear import addition, mds, replication, uncoded, zero_fill
from coded_jax.codes.parity_model import parity_model
from coded_jax.types import Code, CodeShape, PyTree

LEARNED, NO_PARITY, PARITY_MODEL = "learned", "no_parity", "parity_model"

CODES = {
    "uncoded": uncoded,
    "zero_fill": zero_fill,
    "mean_fill": mean_fill,
    "replication": replication,
    "mds": mds,
    "addition": addition,
    "berrut": berrut,
    "spline": spline,
}
"""Codes that need nothing but their sizes."""

NAMES = (LEARNED, NO_PARITY, PARITY_MODEL, *CODES)


def make_code(name: str, shape: CodeShape, variables: PyTree, **settings: Any) -> Code:
    """The code called `name`.

    Args:
      name: one of `NAMES`.
      shape: the sizes to build for.
      variables: of the base model; arrays or `jax.ShapeDtypeStruct`s.
      settings: of `learned_code`, for it and its decoder without parity.

    Raises:
      ValueError: there is none of that name, or a setting is out of range.
    """
    if name == PARITY_MODEL:
        return parity_model(shape, variables)
    if name in CODES:
        return CODES[name](shape)
    if name not in NAMES:
        raise ValueError(f"code: {name!r} given, {list(NAMES)} accepted")
    code = learned_code(shape, **settings)
    return no_parity(shape, code) if name == NO_PARITY else code
