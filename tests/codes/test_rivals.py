"""Rivals of the learned code, each against its formula or on a linear network."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.interpolate import BSpline, CubicSpline, make_smoothing_spline

from coded_jax.codes import curves, linear
from coded_jax.codes.erasures import available, patterns, patterns_up_to
from coded_jax.codes.parity_model import parity_model
from coded_jax.data import groups
from coded_jax.devices.meshes import make_mesh
from coded_jax.evaluation import predictions
from coded_jax.inference.pipeline import base_features, infer
from coded_jax.models.modules import ConvNorm, base_model
from coded_jax.runs.build import build_pipeline
from coded_jax.runs.config import Config
from coded_jax.training import losses, tasks
from coded_jax.types import BaseModel, CodeShape, Split
from tests.models.published import random_variables
from tests.pipelines import UNTRAINED, untrained

B = 3
SHAPE = CodeShape(k=3, r=2, piece=(6, 5, 2), share=(2, 3, 4))
OF_ANY_K = ["mds", "addition"]


def random(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype("f")


def encoded_and_decoded(code, shape, lost, garbage=np.nan):
    """Shares of a network that leaves everything as it is, where some are lost."""
    pieces = random(0, shape.k, B, *SHAPE.share)
    params = code.init(jax.random.key(0))
    results = np.array(code.encode(params, pieces))
    results[list(lost)] = garbage
    return pieces, code.decode(params, results, available(lost, shape.n))


@pytest.mark.parametrize("name", UNTRAINED)
@pytest.mark.parametrize("lost", patterns_up_to(5, 2))
def test_what_is_lost_has_no_effect(name, lost):
    code = untrained(name, SHAPE)
    _, a = encoded_and_decoded(code, SHAPE, lost)
    _, b = encoded_and_decoded(code, SHAPE, lost, garbage=7.0)
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", UNTRAINED)
def test_nothing_lost(name):
    pieces, shares = encoded_and_decoded(untrained(name, SHAPE), SHAPE, ())
    if name in ("berrut", "spline"):
        # Neither interpolant goes through the pieces again, but near them.
        assert 1e-3 < np.abs(shares - pieces).mean() < 0.7
    else:
        np.testing.assert_array_equal(shares, pieces)


@pytest.mark.parametrize("name", OF_ANY_K)
@pytest.mark.parametrize("k, r", [(2, 1), (4, 2), (3, 3), (6, 4)])
def test_linear_codes_decode_from_any_k_results(name, k, r):
    shape = SHAPE._replace(k=k, r=r)
    code = untrained(name, shape)
    atol = 2e-2 if k == 6 else 1e-4  # condition numbers of some 1000
    for lost in patterns(k + r, r):
        pieces, shares = encoded_and_decoded(code, shape, lost)
        np.testing.assert_allclose(shares, pieces, atol=atol)


@pytest.mark.parametrize("k, n", [(2, 3), (4, 6), (5, 12)])
def test_any_k_rows_of_an_mds_generator_are_independent(k, n):
    generator = linear.mds_generator(k, n)
    np.testing.assert_array_equal(generator[:k], np.eye(k))  # copies, bit for bit
    conditions = [
        np.linalg.cond(generator[list(rows)])
        for rows in itertools.combinations(range(n), k)
    ]
    assert max(conditions) < 2e4


def test_addition_is_a_sum_and_a_weighted_sum():
    pieces = random(0, 3, B, 2, 2, 1)
    first, second = linear.addition(SHAPE).encode({}, pieces)[3:]
    np.testing.assert_allclose(first, pieces.sum(0), rtol=1e-5)
    weighted = pieces[0] + 2 * pieces[1] + 3 * pieces[2]
    np.testing.assert_allclose(second, weighted, rtol=1e-5)


def test_uncoded_waits_for_every_data_piece():
    code = linear.uncoded(SHAPE)
    for lost in patterns_up_to(5, 2):
        pieces, shares = encoded_and_decoded(code, SHAPE, lost)
        for i in range(3):
            expected = 0 if i in lost else pieces[i]
            np.testing.assert_array_equal(
                shares[i], np.broadcast_to(expected, shares[i].shape)
            )


@pytest.mark.parametrize("stages", [((1, 1),), ((1, 1), (3, 3))])
def test_no_answer_whatever_the_network_makes_of_what_is_missing(stages):
    # XLA's CPU backend takes NaN for nothing in a max pooling of this size.
    config = Config(base_model="vgg16", base_width=0.125, code="uncoded", stages=stages)
    pipeline = build_pipeline(config, (32, 32, 3), 10, (0.5,) * 3, (0.25,) * 3)
    frozen = random_variables(pipeline.base, (32, 32, 3))
    params = pipeline.init(jax.random.key(0))
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
    answer = jax.jit(infer, static_argnums=0)
    for lost in patterns_up_to(3, 3):
        logits = answer(pipeline, frozen, params, images, available(lost, 3))
        answered = not set(lost) & {0, 1}
        assert np.isfinite(logits).all() == answered
        assert np.isnan(logits).all() != answered
    # Lost in the last stage alone, by some of the images.
    masks = np.ones((len(stages), 3, 4), bool)
    masks[-1, 1, 2:] = False
    logits = answer(pipeline, frozen, params, images, masks)
    assert np.isfinite(logits).all(1).tolist() == [True, True, False, False]


def test_two_pieces_in_three_replicas_survive_any_two_losses():
    shape = SHAPE._replace(k=2, r=4)
    code = linear.replication(shape)
    for lost in patterns_up_to(6, 2):
        pieces, shares = encoded_and_decoded(code, shape, lost)
        np.testing.assert_array_equal(shares, pieces)
    pieces, shares = encoded_and_decoded(code, shape, (0, 2, 4))
    np.testing.assert_array_equal(
        shares, pieces * np.array([0, 1])[:, None, None, None, None]
    )


def test_four_pieces_on_six_devices_have_two_copies_of_two():
    shape = SHAPE._replace(k=4, r=2)
    code = linear.replication(shape)
    for lost in patterns_up_to(6, 1):
        pieces, shares = encoded_and_decoded(code, shape, lost)
        exact = not set(lost) & {2, 3}
        assert np.array_equal(shares, pieces) == exact


def test_berrut_is_the_quotient_of_its_definition():
    nodes, points = np.array([1.0, 0.3, -0.2, -1.0]), np.array([0.5, -0.7])
    values = random(1, 4)
    signs = np.array([1, -1, 1, -1])
    expected = [
        (signs * values / (z - nodes)).sum() / (signs / (z - nodes)).sum()
        for z in points
    ]
    found = curves.berrut_matrix(nodes, points) @ values
    np.testing.assert_allclose(found, expected)
    np.testing.assert_array_equal(curves.berrut_matrix(nodes, nodes), np.eye(4))


@pytest.mark.parametrize("matrix", [curves.berrut_matrix, curves.spline_matrix])
def test_curves_reproduce_constants(matrix):
    extra = (0.01,) if matrix is curves.spline_matrix else ()
    for count in range(1, 7):
        nodes = linear.chebyshev(7, 2)[:count]
        weights = matrix(nodes, linear.chebyshev(4, 1), *extra)
        np.testing.assert_allclose(weights.sum(1), 1)


def test_chebyshev_points():
    half = np.sqrt(0.5)
    np.testing.assert_allclose(linear.chebyshev(2, 1), [half, -half])
    np.testing.assert_allclose(linear.chebyshev(3, 2), [1, 0, -1], atol=1e-15)


@pytest.mark.parametrize("smoothing", [1e-4, 0.01, 3.0])
def test_smoothing_spline_is_scipys(smoothing):
    nodes = np.array([-1.0, -0.4, 0.1, 0.15, 0.8, 1.0])
    values, points = random(2, 6).astype("d"), np.array([-1.3, -0.6, 0.12, 1.0, 1.4])
    # Theirs minimises the sum of squares, ours the mean.
    theirs = make_smoothing_spline(nodes, values, lam=6 * smoothing)
    found = curves.spline_matrix(nodes[::-1], points, smoothing) @ values[::-1]
    inside = np.abs(points) <= 1
    np.testing.assert_allclose(found[inside], theirs(points[inside]), atol=1e-8)
    # Beyond the nodes ours goes on straight.
    assert isinstance(theirs, BSpline)
    slopes = theirs(nodes[[0, -1]], 1)
    expected = theirs(nodes[[0, -1]]) + slopes * (points[~inside] - nodes[[0, -1]])
    np.testing.assert_allclose(found[~inside], expected, atol=1e-8)


@pytest.mark.parametrize("count", [3, 4, 7])
def test_spline_without_smoothing_is_the_natural_one(count):
    nodes = np.sort(linear.chebyshev(count, 1))
    values, points = random(3, count).astype("d"), np.linspace(nodes[0], nodes[-1], 9)
    natural = CubicSpline(nodes, values, bc_type="natural")(points)
    np.testing.assert_allclose(
        curves.spline_matrix(nodes, points, 0) @ values, natural, atol=1e-10
    )


def test_two_points_make_a_straight_line():
    weights = curves.spline_matrix(np.array([1.0, -1.0]), np.array([0.5, 2.0]), 0.1)
    np.testing.assert_allclose(weights @ [3.0, 1.0], [2.5, 4.0])


def test_decoding_matrices_are_looked_up_by_what_arrived():
    found = linear.decoding_matrices(3, lambda arrived: np.diag(arrived * [1, 2, 4.0]))
    for place in range(8):
        assert found[place].sum() == place


def pipeline_of(base, **settings):
    own = {"dataset": "own", "base_model": "own", "recipe": "systematic"}
    config = Config(**own, **settings)
    return build_pipeline(config, (28, 28, 1), 10, (0.1,), (0.3,), base=base)


def images_of(count=4):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (count, 28, 28, 1), np.uint8)


@pytest.fixture(scope="module")
def linear_network(lenet):
    """LeNet-5's first convolution, which is linear, and a linear head."""
    base, variables = lenet
    head = lambda variables, features: features.sum(axis=(1, 2)) @ jnp.eye(6, 10)
    return BaseModel(base.init, base.blocks[:1], head), variables


@pytest.mark.parametrize("grid", [(4, 1), (2, 2)])
@pytest.mark.parametrize("name", OF_ANY_K)
def test_linear_codes_are_exact_where_the_network_is_linear(linear_network, name, grid):
    base, variables = linear_network
    pipe = pipeline_of(base, k=4, r=2, grid=grid, code=name)
    run = jax.jit(infer, static_argnums=0)
    logits = lambda lost: run(pipe, variables, ({},), images_of(), available(lost, 6))
    features = base_features(pipe, variables, images_of())
    expected = base.head(variables, features)
    for lost in patterns_up_to(6, 2):
        np.testing.assert_allclose(logits(lost), expected, rtol=1e-4, atol=1e-3)


def test_coding_each_convolution_of_lenet5_is_exact(lenet):
    """CoCoI's way: bias, ReLU and pooling are computed between the coded stages."""
    base, variables = lenet
    variables = random_variables(base, (28, 28, 1))
    pipe = pipeline_of(base, k=4, r=2, stages=((1, 1), (3, 3)), code="mds")
    run = jax.jit(infer, static_argnums=0)
    x = images_of()
    expected = base.head(variables, base_features(pipe, variables, x))
    for lost in patterns(6, 2):
        found = run(pipe, variables, ({}, {}), x, available(lost, 6))
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("lost", [(0,), (3,), (0, 2), (1, 3)])
def test_a_copy_is_cut_as_the_piece_that_it_copies(lost):
    """With padding the shares stand at other places in the outputs of other pieces."""
    base = base_model([ConvNorm(3), ConvNorm(4)])
    variables = random_variables(base, (28, 28, 1))
    pipe = pipeline_of(base, k=4, r=4, code="replication")
    assert len(set(pipe.stages[0].plan.rows.cuts)) > 1
    run = jax.jit(infer, static_argnums=0)
    found = run(pipe, variables, ({},), images_of(), available(lost, 8))
    expected = base.head(variables, base_features(pipe, variables, images_of()))
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("name", ["replication", "parity_model", "berrut"])
def test_rivals_on_several_devices(lenet, name):
    base, variables = lenet
    pipe = pipeline_of(base, code=name, k=2, r=2)
    params = jax.jit(pipe.init)(jax.random.key(0))
    mask, run = available((0, 2), 4), jax.jit(infer, static_argnums=0)
    expected = run(pipe, variables, params, images_of(8), mask)
    spread = pipe._replace(mesh=make_mesh(4, devices=4))
    found = run(spread, variables, params, images_of(8), mask)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_parity_model_starts_as_the_addition_code(lenet):
    base, variables = lenet
    ours = pipeline_of(base, code="parity_model")
    sums = pipeline_of(base, code="addition")
    params = jax.jit(ours.init)(jax.random.key(0))
    run = jax.jit(infer, static_argnums=0)
    for lost in patterns_up_to(3, 1):
        mask = available(lost, 3)
        np.testing.assert_allclose(
            run(ours, variables, params, images_of(), mask),
            run(sums, variables, ({},), images_of(), mask),
            atol=1e-4,
        )


def test_a_parity_model_learns_and_leaves_the_base_model_alone(lenet):
    base, variables = lenet
    pipe = pipeline_of(base, code="parity_model", k=2, r=2)
    params = jax.jit(pipe.init)(jax.random.key(0))
    batch = {"images": images_of(8), "labels": np.zeros(8, np.int32)}
    mask = available((0, 1), 4)

    def loss(params, variables):
        return losses.coded_losses(pipe, params, variables, batch, mask).mean()

    value = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
    before, (gradient, frozen) = value(params, variables)
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(frozen))
    own = gradient[0]["worker"]
    # Each of the two networks has gradients of its own, but none for the head.
    kernel = own["f_conv"]["params"]["Conv_0"]["kernel"]
    assert kernel.shape[0] == 2 and not np.allclose(kernel[0], kernel[1])
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(own["head"]))
    step = jax.tree.map(lambda p, g: p - 1e-3 * g, params, gradient)
    assert value(step, variables)[0] < before


def test_a_parity_model_keeps_statistics_and_integers():
    variables = {
        "params": {"kernel": np.ones((2, 3), "f")},
        "batch_stats": {"mean": np.full(3, 5, "f")},
        "count": np.array(4, np.int32),
    }
    code = parity_model(SHAPE, variables)
    params = jax.tree.map(lambda x: x + 1, code.init(jax.random.key(0)))
    own = code.parity_worker(params, variables)
    np.testing.assert_array_equal(own["params"]["kernel"], np.full((2, 2, 3), 2))
    np.testing.assert_array_equal(own["batch_stats"]["mean"], np.full((2, 3), 5))
    np.testing.assert_array_equal(own["count"], [4, 4])
    assert own["count"].dtype == variables["count"].dtype


def test_mean_fill_has_the_mean(lenet, monkeypatch):
    base, variables = lenet
    pipe = pipeline_of(base, code="mean_fill")
    images = images_of(32)
    monkeypatch.setattr(losses, "CHUNK", 12)  # does not divide them
    (params,) = losses.constants(pipe, variables, images)
    features = base_features(pipe, variables, images)
    mean = np.stack([features[:, :2].mean(0), features[:, 2:].mean(0)])
    np.testing.assert_allclose(params["mean"], mean, rtol=1e-5, atol=1e-6)
    assert (
        params["mean"].shape == jax.jit(pipe.init)(jax.random.key(0))[0]["mean"].shape
    )


def test_images_of_a_batch_meet_others_in_their_groups():
    images = np.arange(4 * 6 * 2, dtype=np.uint8).reshape(4, 6, 2, 1)
    labels = np.arange(12).reshape(4, 3)
    batch = {"images": images, "labels": labels, "targets": (labels[..., None, None],)}
    mixed = groups.regroup(jax.random.key(0), batch, 3)
    order = np.asarray(mixed["labels"]).ravel()
    assert sorted(order) == list(range(12)) and list(order) != list(range(12))
    np.testing.assert_array_equal(np.ravel(mixed["targets"][0]), order)
    found = np.asarray(mixed["images"]).reshape(12, 2, 2, 1)
    np.testing.assert_array_equal(found, images.reshape(12, 2, 2, 1)[order])


def test_groups_are_tall_images(lenet):
    base, variables = lenet
    images = images_of(6)
    grouped = groups.group_base(base, 28)
    split = groups.group_split(Split(images, np.arange(6, dtype=np.int32)), 3)
    assert split.images.shape == (2, 84, 28, 1) and split.labels.tolist() == [
        [0, 1, 2],
        [3, 4, 5],
    ]
    x = images.astype("f") / 255
    logits = base.head(variables, base.f_conv(variables, x))
    found = grouped.f_conv(variables, split.images.astype("f") / 255)
    np.testing.assert_allclose(found, logits.reshape(2, 3, 1, 10), atol=1e-5)


def test_the_last_group_is_filled_up():
    split = groups.group_split(Split(images_of(5), np.arange(5, dtype=np.int32)), 4)
    assert split.labels.tolist() == [[0, 1, 2, 3], [4, -1, -1, -1]]
    np.testing.assert_array_equal(split.images[1, 28:56], images_of(5)[0])


@pytest.mark.parametrize("name, k", [("replication", 2), ("berrut", 4), ("spline", 8)])
def test_groups_of_images_end_to_end(lenet, name, k):
    """As published: coded images through the whole network, logits decoded."""
    base, variables = lenet
    r = 2 if name == "replication" else 1
    pipe = pipeline_of(base, split="group", k=k, r=r, code=name)
    images = images_of(2 * k)
    run = jax.jit(groups.infer_images, static_argnums=0)
    x = (images.astype("f") / 255 - np.float32(0.1)) / np.float32(0.3)
    logits = lambda x: base.head(variables, base.f_conv(variables, x))
    code = untrained(name, CodeShape(k, r, (28, 28, 1), (1, 1, 10)))
    pieces = x.reshape(2, k, 28, 28, 1).swapaxes(0, 1)
    results = np.stack([logits(q) for q in code.encode({}, pieces)])[:, :, None, None]
    for lost in patterns_up_to(k + r, 1):
        mask = available(lost, k + r)
        found = run(pipe, variables, ({},), images, mask)
        expected = code.decode({}, results, mask)[:, :, 0, 0].swapaxes(0, 1)
        np.testing.assert_allclose(found, expected.reshape(2 * k, 10), atol=1e-4)
        if name == "replication":
            np.testing.assert_allclose(found, logits(x), atol=1e-4)


@pytest.mark.parametrize(
    "name, decoded", [("addition", [0, 1, 0]), ("berrut", [1] * 3)]
)
def test_which_images_of_a_group_are_decoded(lenet, name, decoded):
    """Of a systematic code those whose own result is lost; of others, always all."""
    pipe = pipeline_of(lenet[0], split="group", k=3, r=2, code=name)
    for lost in ([1], [1, 4]):
        found = predictions.decoded(pipe, jnp.asarray(available(lost, 5)))
        assert found.tolist() == [[bool(d) for d in decoded]]
    strips = pipeline_of(lenet[0], k=2, r=2, code=name)
    for lost in ([1], [0, 2], [3]):
        found = predictions.decoded(strips, jnp.asarray(available(lost, 4)))
        assert found.tolist() == [name == "berrut" or lost != [3]]


def test_device_arrays_of_groups(lenet):
    split = groups.group_split(Split(images_of(6), np.zeros(6, np.int32)), 3)
    arrays = tasks.device_arrays(None, split)
    assert arrays["labels"].shape == (2, 3)
