"""Codes that are functions: wrong shapes are refused, and lost results unreadable."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coded_jax.codes import LearnedConfig, make_code
from coded_jax.codes.erasures import available
from coded_jax.types import Code, CodeShape, Quorum

SHAPE = CodeShape(k=2, r=1, piece=(4, 4, 1), share=(2, 4, 3))


def made(function):
    return make_code(function, SHAPE, {}, LearnedConfig())


def with_sum(shape):
    def encode(params, pieces):
        return jnp.concatenate([pieces, pieces.sum(axis=0, keepdims=True)])

    def decode(params, features, available):  # reads results that were lost
        return features[: shape.k]

    return Code(lambda key: {}, encode, decode)


def test_lost_results_cannot_be_read():
    features = jnp.ones((3, 5, *SHAPE.share)).at[1].set(jnp.nan)
    shares = jax.jit(made(with_sum).decode)({}, features, available((1,), 3))
    np.testing.assert_array_equal(shares[0], 1)
    np.testing.assert_array_equal(shares[1], 0)


def fail(*arguments):
    raise RuntimeError("first line\nsecond line")


def swap_first(code):
    return code._replace(encode=lambda p, x: code.encode(p, x)[jnp.array([1, 0, 2])])


def mix_by_parameters(code):
    """Sends the pieces at first; mixtures, when its matrix has been trained."""
    return code._replace(
        init=lambda key: {"matrix": jnp.eye(3, 2)},
        encode=lambda p, x: jnp.einsum("nk,kbhwc->nbhwc", p["matrix"], x),
    )


def change_what_arrived(code):
    """Changes shares that arrived where another one did not."""

    def decode(params, features, arrived):
        every = arrived[:2].all(0)[None, :, None, None, None]
        return jnp.where(every, features[:2], 0.0)

    return code._replace(systematic=True, decode=decode)


@pytest.mark.parametrize(
    "change, message",
    [
        (fail, r"fails for k=2, r=1, .* \(first line\)$"),
        (lambda code: code._replace(init=fail), r"init of .* \(first line\)$"),
        (lambda code: code._replace(decode=fail), r"decode of .* \(first line\)$"),
        (
            lambda code: code._replace(encode=lambda params, pieces: pieces),
            r"encode of .*\[2, 2, 4, 4, 1\].*\[3, 2, 4,",
        ),
        (lambda code: code._replace(decode=lambda *x: x[1]), "decode of .*3, 2, 2,"),
        (
            lambda code: code._replace(decode=lambda *x: {}),
            r"decode of .*: dict \[\] given, an array \[2,",
        ),
        (
            lambda code: code._replace(decode=lambda *x: code.decode(*x).astype("i4")),
            "decode of .* int32 .* given, .* of real numbers",
        ),
        (lambda code: code._replace(quorum=Quorum("any_2")), "quorum of .*'any_2'"),
        (
            lambda code: code._replace(quorum=Quorum("any_k", (0, 1))),
            "quorum of .* given, .* and 3 copies",
        ),
        (swap_first, "query 0 of .* is not data piece 0"),
        (mix_by_parameters, "query 0 of .* is not data piece 0"),
        (
            lambda code: code._replace(quorum=Quorum("any_k", (0, 1, 1))),
            "query 2 of .* is not data piece 1",
        ),
        (change_what_arrived, "systematic of .* True given, False"),
    ],
)
def test_codes_that_are_not_what_they_say(change, message):
    with pytest.raises(ValueError, match=f"^code: .*{message}") as error:
        made(lambda shape: change(with_sum(shape)))
    assert "\n" not in str(error.value)


def test_decoders_need_one_shape_of_the_mask_and_no_dtype():
    """They are given a mask of every image, and may compute in any precision."""

    def per_image(shape):
        def decode(params, features, available):
            fill = lambda x, mask: jnp.where(mask[:2, None, None, None], x[:2], 0.0)
            shares = jax.vmap(fill, in_axes=1, out_axes=1)(features, available)
            return shares.astype("float32")

        return with_sum(shape)._replace(decode=decode)

    code = made(per_image)
    features = jnp.ones((3, 5, *SHAPE.share), "bfloat16")
    shares = code.decode({}, features, available((0,), 3))
    assert shares.dtype == "bfloat16"
    np.testing.assert_array_equal(shares[0], 0)
    np.testing.assert_array_equal(shares[1], 1)


@pytest.mark.parametrize(
    "initial, f",
    [
        ([0.5, 0.95], lambda w: jnp.sqrt(1 - w**2)),
        ([0.0, 1.0], lambda w: jnp.log(1 - w / 1.05)),
    ],
)
def test_parameters_may_have_a_range(initial, f):
    """A blend that makes everything NaN where one of its numbers is."""

    def blended(shape):
        def decode(params, features, available):
            mask = available[: shape.k, :, None, None, None].astype("f")
            rebuilt = features[-1:] * f(params["w"]).sum()
            return mask * features[: shape.k] + (1 - mask) * rebuilt

        init = lambda key: {"w": jnp.array(initial)}
        return with_sum(shape)._replace(init=init, decode=decode, systematic=True)

    with jax.debug_nans(True):
        made(blended)


def test_codes_are_built_inside_of_traced_functions():
    @jax.jit
    def scaled(features, scale):  # closes over a traced value
        decode = lambda params, results, available: scale * results[:2]
        code = made(lambda shape: with_sum(shape)._replace(decode=decode))
        return code.decode({}, features, available((1,), 3))

    features = jnp.ones((3, 5, *SHAPE.share))
    np.testing.assert_array_equal(scaled(features, 2.0)[0], 2)
