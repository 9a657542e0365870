"""Results that are wrong on purpose: of the right shape, and finite."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def _zeros(share: np.ndarray, other: np.ndarray, _: np.random.Generator) -> np.ndarray:
    return np.zeros_like(share)


def _noise(
    share: np.ndarray, other: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    one = share[0].size == share.shape[-1]  # position: no channel deviates
    axes = tuple(range(1, share.ndim if one else share.ndim - 1))
    mean, deviation = (
        moment(axis=axes, keepdims=True, dtype=np.float64)
        for moment in (share.mean, share.std)
    )
    return rng.normal(mean, deviation, share.shape).astype(share.dtype)


def _other(share: np.ndarray, other: np.ndarray, _: np.random.Generator) -> np.ndarray:
    return other


def _bit(share: np.ndarray, other: np.ndarray, _: np.random.Generator) -> np.ndarray:
    wrong = share.reshape(len(share), -1).copy()
    bits = wrong.view(f"u{share.itemsize}")
    top = bits.dtype.type(1 << (8 * share.itemsize - 2))  # behind the sign
    bits[range(len(share)), np.abs(wrong).argmax(axis=1)] ^= top
    return wrong.reshape(share.shape)


_WAYS: dict[
    str, Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]
] = {"zeros": _zeros, "noise": _noise, "share": _other, "bit": _bit}
KINDS = tuple(_WAYS)


def corrupted(
    kind: str, share: np.ndarray, other: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Returns a wrong result of the same shape and dtype.

    Args:
      kind: `"zeros"`; `"noise"`, with the mean and the deviation of each channel of an
        image's share, or of all of it where it has one position; `"share"`, that of
        other images; or `"bit"`, the top exponent bit of each image's largest value
        flipped, which makes one of `[1, 2)` infinite or no number, one above it almost
        zero and one below it huge.
      share: `[B, M, M', D]`, the right result.
      other: likewise, of other images.
      rng: of the noise.
    """
    return _WAYS[kind](share, other, rng)
