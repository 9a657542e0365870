"""What the outputs of pieces show of other shares, by hand and in codes."""

import jax
import jax.numpy as jnp
import numpy as np

from coded_jax import splitting
from coded_jax.codes import LearnedConfig, learned_code, margins, no_parity
from coded_jax.codes.erasures import available, patterns_up_to
from coded_jax.inference import stages
from coded_jax.inference.stages import CodedStage
from coded_jax.splitting.plan import make_plan
from coded_jax.types import CodeShape

B = 3


def conv(x, stride=1):
    kernel = jnp.ones((3, 3, x.shape[-1], 2)) / 9
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def padded(variables, x):
    return conv(conv(x, 2))


def images_of(plan):
    shape = (B, plan.rows.size, plan.columns.size, plan.channels)
    return np.random.default_rng(0).uniform(0.5, 1, size=shape).astype("f")


def outputs_of(f, plan, images):
    pieces = splitting.split(plan, images)
    return jnp.stack([f({}, piece) for piece in pieces])


def test_columns_beside_the_share_by_hand():
    # Windows of 5 of 8 columns for shares of 4: a margin of one column, in which a
    # piece sees two thirds of the pixels.
    f = lambda variables, x: conv(x)
    plan = make_plan(f, {}, (2, 8, 1), (1, 2))
    assert (plan.columns.window, plan.columns.outputs) == (5, 5)
    assert plan.output_shape == (2, 5, 2)
    outputs = outputs_of(f, plan, images_of(plan) * 0 + 1)
    only_first = jnp.array([[True], [False]])
    seen = margins.of_shares(
        plan, outputs * only_first[..., None, None, None], only_first, jnp.array([[1]])
    )
    np.testing.assert_array_equal(
        seen.covered[0, 0, :, :, 0], [[True, False, False, False]] * 2
    )
    two_thirds = np.float32(2 / 3 * 2 / 3)  # two rows of three, too
    expected = np.zeros((1, B, 2, 4, 2), np.float32)
    expected[:, :, :, 0] = two_thirds
    np.testing.assert_allclose(seen.features, expected, rtol=1e-6)
    # At first half of it, and half of another view; then what is learned.
    other = jnp.ones((1, B, 2, 4, 2))
    shares = jnp.array([[1]])
    blended = margins.blend(jnp.zeros((2, 2, 4)), seen, shares, other)
    expected[:] = 1
    expected[:, :, :, 0] = (1 + two_thirds) / 2
    np.testing.assert_allclose(blended, expected, rtol=1e-6)
    sure = jnp.zeros((2, 2, 4)).at[1].set(10.0)
    blended = margins.blend(sure, seen, shares, other)
    np.testing.assert_allclose(blended[:, :, :, 0], two_thirds, rtol=1e-6)
    np.testing.assert_array_equal(blended[:, :, :, 1:], 1)


def test_margins_of_all_patterns_against_a_loop():
    grid = (2, 2)
    plan = make_plan(padded, {}, (32, 32, 3), grid)
    outputs = np.asarray(outputs_of(padded, plan, images_of(plan)))
    for lost in patterns_up_to(plan.k, plan.k - 1):
        mask = available(lost, plan.k)
        total = np.zeros((B, plan.rows.out, plan.columns.out, 2), np.float32)
        count = np.zeros((plan.rows.out, plan.columns.out))
        for i in set(range(plan.k)) - set(lost):
            row, column = divmod(i, grid[1])
            rows, columns = (
                slice(axis.starts[j] // 2, axis.starts[j] // 2 + axis.outputs)
                for axis, j in ((plan.rows, row), (plan.columns, column))
            )
            total[:, rows, columns] += outputs[i]
            count[rows, columns] += 1
        mean = splitting.shares(plan, total / np.maximum(count, 1)[..., None])
        covered = splitting.shares(plan, (count > 0)[None, :, :, None])
        zeroed = jnp.where(mask[..., None, None, None], outputs, 0)
        every = jnp.arange(plan.k)[:, None]
        for images in (1, B):  # one mask and one set of shares, or those of each image
            masks, shares = (jnp.tile(x, (1, images)) for x in (mask, every))
            seen = margins.of_shares(plan, zeroed, masks, shares)
            np.testing.assert_allclose(seen.features, mean, rtol=1e-5, atol=1e-6)
            expected = np.broadcast_to(covered, seen.covered.shape)
            np.testing.assert_array_equal(seen.covered, expected)


def uncut_code():
    plan = make_plan(padded, {}, (32, 32, 3), (1, 2))
    settings = {"decoder": "sharpen", "parity_pieces": "smaller", "returned": "outputs"}
    config = LearnedConfig(recipe="systematic", encoder="linear", **settings)
    shape = CodeShape.of(plan, 1)
    code = learned_code(shape, config)
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda x: x + rng.normal(scale=0.3, size=x.shape).astype("f"),
        code.init(jax.random.key(0)),
    )
    assert code.traits.uncut and params["margins"].shape == (shape.k, *shape.share[:2])
    return shape, code, params


def test_a_margin_is_read():
    shape, code, params = uncut_code()
    rng = np.random.default_rng(1)
    results = rng.normal(size=(shape.n, B, *shape.result(True))).astype("f")
    pieces = rng.normal(size=(shape.k, B, *shape.piece)).astype("f")
    mask = available((0,), shape.n)
    for decoder in (code, no_parity(shape, code)):
        run = jax.jit(decoder.decode)
        decode = lambda results: run(params, results, mask, pieces)  # noqa: B023
        assert decoder.traits.uncut
        other = results.copy()
        other[1, :, :, 0] += 1  # beside the share of piece 1
        assert not np.allclose(decode(other)[0], decode(results)[0])
        np.testing.assert_array_equal(decode(other)[1], decode(results)[1])


def test_shares_that_were_filled_are_seen_as_outputs():
    lost = (0, 1)
    shape, code, params = uncut_code()
    plan, k, n = shape.plan, shape.k, shape.n
    stage = CodedStage(padded, (1, 1), plan, code)
    x = jnp.asarray(images_of(plan))
    sent = stages.begin_stage(stage, {}, params, x)
    results = stages.stage_results(stage, {}, params, sent.queries)
    pieces = splitting.split(plan, x)
    mask = available(lost, n)
    first = code.decode(params, results, mask, pieces)
    # One share is corrected, and the other one's estimate is no zero.
    assert first[lost[0]].any() and first[lost[1]].any()
    merged = splitting.merge(plan, first)
    windows = jnp.stack([margins.window_of(plan, merged, i) for i in range(k)])
    data = jnp.where(mask[:k, ..., None, None, None], results[:k], windows)
    known = jnp.concatenate([data, results[k:]])
    both = code.decode(params, known, available(lost[1:], n), pieces)
    recovered = stages.end_stage(stage, params, results, mask, sent.kept)
    expected = splitting.merge(plan, both)
    np.testing.assert_allclose(recovered, expected, rtol=1e-4, atol=1e-5)
