"""Faster implementations of a part of `f_conv` for some platforms, as a promise.

The analysis follows every branch of a `jax.lax.platform_dependent`, and refuses those
that mix positions, which fast implementations often do: one that makes a matrix product
of a whole row, say. `platform_specialised` promises that they return the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

_SCOPE = "coded_jax.platform_specialised"


def platform_specialised(
    *operands: Any, default: Callable[..., Any], **fast: Callable[..., Any]
) -> Any:
    """Runs `jax.lax.platform_dependent`, where all branches return the same.

    The analysis of `f_conv` then reads the default branch alone. The promise is the
    caller's: it is not verified.

    Args:
      *operands: of the branches.
      default: `(*operands) -> outputs`; of operations that can be analysed.
      **fast: platform -> implementation that returns the same, up to rounding.
    """
    with jax.named_scope(_SCOPE):
        return jax.lax.platform_dependent(*operands, default=default, **fast)


def is_specialised(eqn: Any) -> bool:
    """Returns whether a `cond` over platforms was made by `platform_specialised`."""
    # Transformations wrap the innermost scope: "block/vmap(coded_jax.platform_...)".
    return str(eqn.source_info.name_stack).rstrip(")").endswith(_SCOPE)
