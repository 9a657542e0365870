"""Coded inference end to end: exact where it must be, and compiled once."""

import functools
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coded_jax.codes import zero_fill
from coded_jax.codes.erasures import available, patterns_up_to
from coded_jax.devices import placement
from coded_jax.inference.pipeline import Examples, infer
from coded_jax.runs.build import build_pipeline
from coded_jax.runs.config import Config
from coded_jax.splitting.plan import make_plan
from coded_jax.types import CodeShape
from tests.models.published import random_variables
from tests.pipelines import learned, one_stage

B = 3
NOTHING = ({},)  # parameters of one code that has none


def make(lenet, grid, r, make_code=zero_fill):
    base, variables = lenet
    plan = make_plan(base.f_conv, variables, (28, 28, 1), grid)
    shape = CodeShape(plan.k, r, plan.piece_shape, plan.share_shape)
    return one_stage(base, plan, make_code(shape), (0.13,), (0.31,), r)


def random_images(shape=(28, 28, 1)):
    return np.random.default_rng(0).integers(0, 256, (B, *shape), np.uint8)


def normalised(pipeline, images):
    mean, std = (
        np.float32(x)[None, None, None]
        for x in (pipeline.examples.mean, pipeline.examples.std)
    )
    return (images.astype(np.float32) / 255 - mean) / std


def test_pieces_are_one_batch_of_f_conv(lenet):
    """An axis of pieces between its layers would cost a TPU copies of all of them."""
    pipeline, (_, variables) = make(lenet, (4, 1), 2), lenet
    (stage,), shapes = pipeline.stages, []

    def f_conv(variables, x):
        shapes.append(x.shape)
        return stage.f_conv(variables, x)

    pipeline = pipeline._replace(stages=(stage._replace(f_conv=f_conv),))
    mask = available((), pipeline.n)
    infer(pipeline, variables, NOTHING, random_images(), mask)
    assert shapes == [(6 * B, *stage.plan.piece_shape)]


def test_one_compilation_serves_every_pattern(lenet):
    base, variables = lenet
    pipeline = make(lenet, (4, 1), 2)
    # Of whole images, in float32 from the start.
    features = jax.jit(base.f_conv)(variables, normalised(pipeline, random_images()))

    @jax.jit
    @chex.assert_max_traces(n=1)
    def coded(*args):
        return infer(pipeline, *args)

    head = jax.jit(base.head)
    every = patterns_up_to(pipeline.n, 2)
    assert len(every) == 1 + 6 + 15
    for lost in every:
        logits = coded(variables, NOTHING, random_images(), available(lost, pipeline.n))
        # Share i is row i of the features.
        rows = np.array([[[[i not in lost]]] for i in range(4)])[None, :, 0]
        expected = head(variables, np.where(rows, features, 0))
        chex.assert_trees_all_close(logits, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("systematic", [True, False])
def test_a_systematic_code_decodes_only_what_is_lost(lenet, systematic):
    decoded = []

    def make_code(shape):
        code = learned(shape, encoder_width=8, systematic=systematic)

        def decode(params, features, available):
            jax.debug.callback(lambda: decoded.append(1))
            return code.decode(params, features, available)

        return code._replace(decode=decode)

    pipeline = make(lenet, (2, 1), 1, make_code)
    params = jax.jit(pipeline.init)(jax.random.key(0))
    coded = jax.jit(infer, static_argnums=0)
    for lost, expected in (((), 0), ((2,), 0), ((0,), 1)):
        decoded.clear()
        mask = available(lost, 3)
        coded(pipeline, lenet[1], params, random_images(), mask).block_until_ready()
        jax.effects_barrier()
        assert len(decoded) == (expected if systematic else 1)


# --- chains of stages -----------------------------------------------------------------

# Two shares are halves of the 28 rows of block 1, and 4 rows each of the 7 of block 4,
# one of them in both. Block 2 is not coded, nor those from 5 on.
CUT = {1: 14, 4: 4}  # block -> first row of its output's second share


@functools.cache
def make_chain():
    """A VGG-16 of 1/16 of its maps, and random variables of it and of its codes."""
    config = Config(
        base_model="vgg16",
        base_width=1 / 16,
        stages=((1, 1), (3, 4)),
        recipe="systematic",
        encoder="conv",
        decoder="conv",
        encoder_width=2,
        decoder_width=2,
        dilations=(1,),
    )
    pipeline = build_pipeline(config, Examples((28, 28, 1), (0.13,), (0.31,)), 10)
    params = jax.tree.map(
        lambda x: np.random.default_rng(x.size).normal(size=x.shape).astype("f"),
        jax.eval_shape(pipeline.init, jax.random.key(0)),
    )
    return pipeline, random_variables(pipeline.base, (28, 28, 1)), params


def by_hand(pipeline, variables, images, masks):
    """Logits of a chain that has zeros in the place of lost rows."""
    ends = [stage.blocks[1] for stage in pipeline.stages]
    coded, x = dict(zip(ends, masks, strict=True)), normalised(pipeline, images)
    for i, block in enumerate(pipeline.base.blocks, start=1):
        x = block(variables, x)
        if i in coded:
            second = (np.arange(x.shape[1]) >= CUT[i]).astype(int)
            x = x * coded[i][second].T[:, :, None, None]
    return pipeline.base.head(variables, x)


def lost_in_stages(*lost):
    return np.stack([available(indices, 3) for indices in lost])


def test_zero_fill_in_every_stage_against_a_hand_written_chain():
    pipeline, variables, _ = make_chain()
    pipeline = pipeline.with_codes(lambda shape, code: zero_fill(shape))
    images, every, nothing = random_images(), patterns_up_to(3, 1), ({}, {})

    @jax.jit
    @chex.assert_max_traces(n=1)
    def coded(masks):
        return infer(pipeline, variables, nothing, images, masks)

    hand = jax.jit(lambda masks: by_hand(pipeline, variables, images, masks))
    answers = []
    for first, second in itertools.product(every, every):
        masks = lost_in_stages(first, second)
        answers.append(coded(masks))
        np.testing.assert_allclose(answers[-1], hand(masks), rtol=1e-4, atol=1e-4)
    # Parity pieces are of no use, and all other patterns differ.
    assert len({np.asarray(a).round(4).tobytes() for a in answers}) == 9


def test_masks_of_every_form_mean_the_same():
    pipeline, variables, _ = make_chain()
    pipeline = pipeline.with_codes(lambda shape, code: zero_fill(shape))
    run = jax.jit(functools.partial(infer, pipeline))
    arguments = (variables, ({}, {}), random_images())
    one = available((1,), 3)
    expected = run(*arguments, one)
    for mask in (np.broadcast_to(one, (3, B)), np.stack([one, one])):
        np.testing.assert_allclose(run(*arguments, mask), expected, 1e-5, 1e-5)
    # Each image and each stage its own.
    mixed = np.ones((2, 3, B), bool)
    mixed[0, 0, 0] = mixed[1, 1, 0] = mixed[1, 0, 2] = False
    logits = run(*arguments, mixed)
    for i in range(B):
        alone = run(*arguments, mixed[:, :, i : i + 1])[i]
        np.testing.assert_allclose(logits[i], alone, rtol=1e-4, atol=1e-5)


def test_a_device_that_stays_away_has_the_parity_piece_of_later_stages():
    pipeline, variables, params = make_chain()
    images, run = random_images(), jax.jit(infer, static_argnums=0)
    moving = pipeline._replace(coding=pipeline.coding._replace(parity_moves=True))
    for lost in range(3):
        logits = run(moving, variables, params, images, available((lost,), 3))
        masks = lost_in_stages((lost,), (2,))
        expected = run(pipeline, variables, params, images, masks)
        np.testing.assert_array_equal(logits, expected)
        of_each = np.broadcast_to(available((lost,), 3), (3, B))
        logits = run(moving, variables, params, images, of_each)
        chex.assert_trees_all_close(logits, expected, rtol=1e-4, atol=1e-4)


def test_garbage_in_lost_slots_of_any_stage_has_no_effect(monkeypatch):
    pipeline, variables, params = make_chain()
    images = random_images()
    masks = np.ones((2, 3, B), bool)
    masks[0, 0, 0] = masks[1, 1, 0] = masks[0, 2, 1] = masks[1, 0, 1] = False

    def logits_with(garbage):
        stages = iter(range(2))

        def spread(f, queries):
            outputs = f(queries)
            arrived = masks[next(stages)][:, :, None, None, None]
            return jnp.where(arrived, outputs, garbage)

        monkeypatch.setattr(placement, "run_locally", spread)
        logits = jax.jit(lambda x: infer(pipeline, variables, params, x, masks))(images)
        assert next(stages, None) is None
        return logits

    clean = logits_with(0.0)
    assert np.isfinite(clean).all()
    for garbage in (np.nan, np.inf):
        np.testing.assert_array_equal(logits_with(garbage), clean)
