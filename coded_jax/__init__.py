"""Learned erasure codes for distributed CNN inference.

An image is split into `k` overlapping pieces, an encoder makes `r` parity pieces, all
`n = k + r` pieces run through the same frozen `f_conv`, and from any `k` results a
decoder reconstructs the features that the head classifies.

Letters, used everywhere:

    B      batch
    H W C  height, width and channels of an image
    h w    height and width of a piece
    k      data pieces          r   parity pieces          n = k + r
    M M'   height and width of one share of the features
    M* M'* height and width of the merged features
    D      channels of the features
    l      lost results

Use a finished run with `coded_jax.load(workdir)`; give a CNN of your own a code with
`coded_jax.protect`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coded_jax.runs.coded_model import CodedModel as CodedModel
    from coded_jax.runs.coded_model import load as load
    from coded_jax.runs.protect import protect as protect

__version__ = "0.1.0"

_LAZY = {
    "CodedModel": "runs.coded_model",
    "load": "runs.coded_model",
    "protect": "runs.protect",
}


def __getattr__(name: str) -> Any:
    # Lazy, so that `import coded_jax` costs nothing and touches no device.
    if name in _LAZY:
        return getattr(import_module(f"coded_jax.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'coded_jax' has no attribute {name!r}")
