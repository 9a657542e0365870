"""A code of the registry: its builder, and the facts that others need of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from coded_jax.codes.learned_config import LearnedConfig
from coded_jax.types import Code, CodeShape, PyTree


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
    """

    make: Callable[[CodeShape, PyTree, LearnedConfig], Code]
    trained: bool = False
    label: str = "{code}"
    title: str = "{code} code"
    fewest_pieces: int = 2
    meaning: str = ""


def from_shape(
    make: Callable[[CodeShape], Code], meaning: str, fewest_pieces: int = 2
) -> CodeEntry:
    """Returns the entry of a code that needs only its sizes and is not trained."""
    return CodeEntry(
        lambda shape, variables, config: make(shape),
        fewest_pieces=fewest_pieces,
        meaning=meaning,
    )
