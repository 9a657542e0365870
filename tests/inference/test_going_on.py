"""Parity pieces that go on from stage to stage with their own smaller features."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coded_jax.inference.pipeline import (
    infer,
)
from coded_jax.inference.stages import enter, go_on, queries, small_of
from coded_jax.runs.build import build_pipeline
from coded_jax.runs.config import Config
from tests.errors import refused
from tests.models.published import random_variables

B = 2
CONFIG = Config(
    base_model="vgg16",
    base_width=1 / 16,
    stages=((1, 2), (4, 4)),
    recipe="systematic",
    parity_pieces="smaller",
    encoder="linear",
    decoder="sharpen",
    parity_goes_on=True,
    k=4,
    r=1,
    grid=(2, 2),
)


@functools.cache
def parts(**changes):
    config = dataclasses.replace(CONFIG, **changes)
    pipeline = build_pipeline(config, (32, 32, 3), 10, (0.5,) * 3, (0.2,) * 3)
    variables = random_variables(pipeline.base, (32, 32, 3))
    return pipeline, variables, jax.jit(pipeline.init)(jax.random.key(0))


IMAGES = np.random.default_rng(0).integers(0, 256, (B, 32, 32, 3), np.uint8)


def mask(*lost_of_stages):
    masks = np.ones((2, 5, 1), bool)
    for i, lost in enumerate(lost_of_stages):
        masks[i, list(lost)] = False
    return masks


def logits_of(pipeline, variables, params, masks):
    return np.asarray(
        jax.jit(infer, static_argnums=0)(pipeline, variables, params, IMAGES, masks)
    )


def test_the_next_parity_pieces_are_the_parity_results():
    pipeline, variables, params = parts(returned="outputs")
    first, second = pipeline.stages
    features = np.random.default_rng(1).normal(size=(5, B, *first.result_shape))
    features = jnp.asarray(features, jnp.float32)
    available = jnp.ones((5, B), bool).at[4, 1].set(False)
    small = small_of(first, features, available)
    rows, columns = first.plan.rows, first.plan.columns
    top, left = rows.cuts[rows.interior], columns.cuts[columns.interior]
    inner = features[4:, :, top : top + rows.share, left : left + columns.share]
    np.testing.assert_array_equal(small.features, inner)
    pieces = go_on(second, variables, small)
    # Block 3 is computed on each by itself, then its edges are repeated in the halo.
    between = np.stack([pipeline.base.blocks[2](variables, x) for x in inner])
    plan = second.plan
    first_row = 2 * plan.rows.cuts[plan.rows.interior]  # block 4 pools
    height, width, _ = plan.piece_shape
    expected = np.pad(
        between,
        ((0, 0), (0, 0)) + ((first_row, height - first_row - 8),) * 2 + ((0, 0),),
        mode="edge",
    )
    assert height == width > 8
    np.testing.assert_allclose(pieces.features, expected, rtol=1e-5, atol=1e-5)
    x, _ = enter(second, variables, jnp.ones((B, 16, 16, 4)))
    sent, anew = (queries(second, params[1], x, s) for s in (pieces, None))
    np.testing.assert_array_equal(sent[:4], anew[:4])
    np.testing.assert_array_equal(sent[4, 0], pieces.features[0, 0])
    np.testing.assert_array_equal(sent[4, 1], anew[4, 1])  # that has not arrived


def test_what_a_later_stage_lost_is_decoded_from_them():
    own, variables, params = parts()
    anew, *_ = parts(parity_goes_on=False)
    run = functools.partial(logits_of, variables=variables, params=params)
    lost_later = mask((), (0,))
    assert not np.allclose(run(own, masks=lost_later), run(anew, masks=lost_later))
    without_parity = mask((4,), (0,))
    np.testing.assert_array_equal(
        run(own, masks=without_parity), run(anew, masks=without_parity)
    )
    np.testing.assert_array_equal(run(own, masks=mask()), run(anew, masks=mask()))


MOBILENET = dict(base_model="mobilenet", base_width=0.25, stages=((1, 1), (12, 12)))


@pytest.mark.parametrize(
    "changes",
    [
        {"parity_pieces": "sums", "decoder": "mlp"},
        {"stages": ((1, 2),)},
        {"r": 2},
        {**MOBILENET, "grid": (1, 3), "k": 3},  # features of another size
    ],
)
def test_where_parity_pieces_cannot_go_on(changes):
    with refused("parity_goes_on"):
        parts(**changes)
