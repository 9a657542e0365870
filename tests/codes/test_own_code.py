"""Codes that are functions: wrong shapes are refused, and lost results unreadable."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coded_jax.codes import LearnedConfig, make_code
from coded_jax.codes.erasures import available
from coded_jax.types import Code, CodeShape

SHAPE = CodeShape(k=2, r=1, piece=(4, 4, 1), share=(2, 4, 3))


def with_sum(shape):
    def encode(params, pieces):
        return jnp.concatenate([pieces, pieces.sum(axis=0, keepdims=True)])

    def decode(params, features, available):  # reads results that were lost
        return features[: shape.k]

    return Code(lambda key: {}, encode, decode)


def test_lost_results_cannot_be_read():
    code = make_code(with_sum, SHAPE, {}, LearnedConfig())
    features = jnp.ones((3, 5, *SHAPE.share)).at[1].set(jnp.nan)
    shares = jax.jit(code.decode)({}, features, available((1,), 3))
    np.testing.assert_array_equal(shares[0], 1)
    np.testing.assert_array_equal(shares[1], 0)


@pytest.mark.parametrize(
    "function, changed, message",
    [
        ("encode", lambda params, pieces: pieces, r"\[2, 2, 4, 4, 1\].*\[3, 2, 4,"),
        ("decode", lambda params, features, _: features, r"\[3, 2, 2, .*\[2, 2, 2,"),
        ("decode", lambda params, features, _: {}, "dict for 2 images"),
    ],
)
def test_wrong_shapes(function, changed, message):
    wrong = lambda shape: with_sum(shape)._replace(**{function: changed})
    with pytest.raises(ValueError, match=f"code: {function} of .*{message}"):
        make_code(wrong, SHAPE, {}, LearnedConfig())


def test_no_code():
    with pytest.raises(ValueError, match="gives a tuple, a coded_jax.Code accepted"):
        make_code(lambda shape: (1, 2), SHAPE, {}, LearnedConfig())
