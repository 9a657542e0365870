"""The kernels of XLA, to compare with, and random arrays."""

from unittest import mock

import jax
import numpy as np

from coded_jax.cpu_kernels import lowering, pooling


def by_xla(f, *args):
    """`f(*args)` by XLA's own kernels."""
    never = lambda *_: False
    with (
        mock.patch.object(lowering, "_runs_here", never),
        mock.patch.object(pooling, "is_elementwise", never),
    ):
        program = jax.jit(lambda *args: f(*args)).lower(*args)
    return program.compile()(*args)


def by_own_kernels(f, *args):
    lowering.install()
    return jax.jit(f)(*args)


def randoms(seed, *shapes):
    rng = np.random.default_rng(seed)
    return tuple(rng.normal(size=shape).astype("float32") for shape in shapes)


def assert_close(actual, expected, tolerance=2e-5):
    """Up to `tolerance` of the largest element of each array."""
    for a, b in zip(*map(jax.tree.leaves, (actual, expected)), strict=True):
        a, b = (np.asarray(x, "float64") for x in (a, b))
        assert a.shape == b.shape
        largest = np.abs(b).max(initial=1)
        assert np.abs(a - b).max(initial=0) <= tolerance * largest


def with_gradients(f):
    """`args -> f(*args)` and the gradients of a curved function of it."""

    def run(*args):
        out, pullback = jax.vjp(f, *args)
        return out, pullback(jax.numpy.cos(out))

    return run
