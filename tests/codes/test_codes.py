"""Codes: sizes and formulas by hand, and what every code must do with lost results."""

import functools

import chex
import jax
import numpy as np
import pytest

from coded_jax.codes import no_parity, zero_fill
from coded_jax.codes.erasures import available, patterns_up_to
from coded_jax.codes.estimate import linear_estimate
from coded_jax.codes.networks.conv import DilatedStack
from coded_jax.codes.networks.local import LocalStack
from coded_jax.codes.networks.pointwise import PointwiseDecoder
from coded_jax.codes.networks.strided import StridedEncoder, from_blocks, to_blocks
from coded_jax.codes.sums import cosines, powers
from coded_jax.types import Code, CodeShape
from tests.pipelines import learned

B = 3
SHAPE = CodeShape(k=2, r=2, piece=(6, 5, 3), share=(2, 3, 4))
SMALL = dict(encoder_width=4, decoder_width=4, dilations=(2,))
LEARNED = {
    "mlp": dict(),
    "mlp, independent": dict(decoder_channels="independent"),
    "conv": dict(encoder="conv", decoder="conv", **SMALL),
    "conv, joint": dict(
        encoder="conv", decoder="conv", decoder_channels="joint", **SMALL
    ),
}
MLP_AND_CONV = [*LEARNED]
LEARNED |= {
    "local": dict(encoder="local", decoder="local"),
    "local, independent": dict(
        encoder="local", decoder="local", decoder_channels="independent"
    ),
    "pointwise": dict(encoder="strided", decoder="pointwise"),
    "low rank": dict(encoder="strided", decoder="low_rank"),
}
INDEPENDENT = ["mlp, independent", "conv", "local, independent"]


@functools.cache
def make(name: str, systematic: bool = True):
    """A code, jitted, and random parameters for it, biases included."""
    if name == "zero_fill":
        code = zero_fill(SHAPE)
    elif name == "no_parity":
        code = no_parity(SHAPE, learned(SHAPE, systematic=systematic))
    else:
        code = learned(SHAPE, **LEARNED[name], systematic=systematic)
    rng = np.random.default_rng(0)
    random = lambda x: rng.normal(scale=np.prod(x.shape[:-1]) ** -0.5, size=x.shape)
    params = jax.eval_shape(code.init, jax.random.key(0))
    params = jax.tree.map(lambda x: random(x).astype("f"), params)
    return Code(code.init, jax.jit(code.encode), jax.jit(code.decode)), params


def random_pieces() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(SHAPE.k, B, *SHAPE.piece)).astype("f")


def random_features() -> np.ndarray:
    return np.random.default_rng(2).normal(size=(SHAPE.n, B, *SHAPE.share)).astype("f")


def count(name, k, r, h, **options):
    """Parameters of one half of a code for 28x28 images and LeNet-5's features."""
    shape = CodeShape(k, r, piece=(h, 28, 1), share=(4 // k, 4, 16))
    code = learned(shape, encoder="mlp", decoder="mlp", **options)
    if "conv" in name:
        code = learned(shape, encoder="conv", decoder="conv", **options)
    half = "encoder" if "Encoder" in name else "decoder"
    params = jax.eval_shape(code.init, jax.random.key(0))[half]
    return sum(x.size for x in jax.tree.leaves(params))


@pytest.mark.parametrize(
    "k, r, h, width, expected",
    [
        # Table I: k*h*w -> k*h*w -> r*h*w, with biases.
        (2, 1, 20, None, 1120 * 1120 + 1120 + 1120 * 560 + 560),
        (4, 1, 16, None, 1792 * 1792 + 1792 + 1792 * 448 + 448),
        (4, 2, 16, None, 1792 * 1792 + 1792 + 1792 * 896 + 896),
        (2, 1, 20, 100, 1120 * 100 + 100 + 100 * 560 + 560),
    ],
)
def test_parameters_of_mlp_encoder(k, r, h, width, expected):
    assert count("mlp Encoder", k, r, h, encoder_width=width) == expected


def test_paper_mlp_encoder_has_1_883_280_parameters():
    assert count("mlp Encoder", 2, 1, 20) == 1_883_280


@pytest.mark.parametrize(
    "k, r, h, channels, width, expected",
    [
        # Table II: n*M*M' -> k*M*M' -> k*M*M' -> k*M*M', times D = 16 if joint.
        (2, 1, 20, None, None, 384 * 256 + 256 + 2 * (256 * 256 + 256)),
        (2, 1, 20, "joint", None, 384 * 256 + 256 + 2 * (256 * 256 + 256)),
        (4, 1, 16, "joint", None, 320 * 256 + 256 + 2 * (256 * 256 + 256)),
        (4, 2, 16, "joint", None, 384 * 256 + 256 + 2 * (256 * 256 + 256)),
        (2, 1, 20, "independent", None, 24 * 16 + 16 + 2 * (16 * 16 + 16)),
        (4, 1, 16, "independent", None, 20 * 16 + 16 + 2 * (16 * 16 + 16)),
        (2, 1, 20, "joint", 50, 384 * 50 + 50 + 50 * 50 + 50 + 50 * 256 + 256),
    ],
)
def test_parameters_of_mlp_decoder(k, r, h, channels, width, expected):
    options = dict(decoder_channels=channels, decoder_width=width)
    assert count("mlp Decoder", k, r, h, **options) == expected


@pytest.mark.parametrize(
    "k, r, options, expected",
    [
        # Table I: 3x3 from k to 20*k maps, five more 3x3, 1x1 to r maps, with biases.
        (2, 1, {}, 9 * 2 * 40 + 40 + 5 * (9 * 40 * 40 + 40) + 40 + 1),
        (4, 2, {}, 9 * 4 * 80 + 80 + 5 * (9 * 80 * 80 + 80) + 80 * 2 + 2),
        (
            2,
            1,
            dict(encoder_width=8, dilations=(1, 2)),
            9 * 2 * 8 + 8 + (9 * 8 * 8 + 8) + 8 + 1,
        ),
        (
            2,
            1,
            dict(encoder_width=8, dilations=(1, 2), kernel=5),
            25 * 2 * 8 + 8 + (25 * 8 * 8 + 8) + 8 + 1,
        ),
    ],
)
def test_parameters_of_conv_encoder(k, r, options, expected):
    assert count("conv Encoder", k, r, 20, **options) == expected


@pytest.mark.parametrize(
    "k, r, options, expected",
    [
        # Table II, likewise: n maps in and k out, or n*D and k*D if joint.
        (2, 1, {}, 9 * 3 * 60 + 60 + 5 * (9 * 60 * 60 + 60) + 60 * 2 + 2),
        (4, 2, {}, 9 * 6 * 120 + 120 + 5 * (9 * 120 * 120 + 120) + 120 * 4 + 4),
        (
            2,
            1,
            dict(decoder_channels="joint"),
            9 * 48 * 960 + 960 + 5 * (9 * 960 * 960 + 960) + 960 * 32 + 32,
        ),
        (
            2,
            1,
            dict(decoder_channels="joint", decoder_width=8, dilations=(1, 2)),
            9 * 48 * 8 + 8 + (9 * 8 * 8 + 8) + 8 * 32 + 32,
        ),
        (
            2,
            1,
            dict(decoder_channels="joint", decoder_width=8, decoder_dilations=(4,)),
            9 * 48 * 8 + 8 + 8 * 32 + 32,
        ),
    ],
)
def test_parameters_of_conv_decoder(k, r, options, expected):
    assert count("conv Decoder", k, r, 20, **options) == expected


@pytest.mark.parametrize("name", [*LEARNED, "zero_fill", "no_parity"])
def test_queries_begin_with_the_pieces(name):
    code, params = make(name)
    pieces = random_pieces()
    queries = code.encode(params, pieces)
    chex.assert_shape(queries, (SHAPE.n, B, *SHAPE.piece))
    np.testing.assert_array_equal(queries[: SHAPE.k], pieces)


@pytest.mark.parametrize("name", ["mlp", "conv"])
def test_every_channel_is_encoded_alike_and_alone(name):
    code, params = make(name)
    pieces = random_pieces()
    parity = code.encode(params, pieces)[SHAPE.k :]
    order = np.array([2, 0, 1])
    permuted = code.encode(params, pieces[..., order])[SHAPE.k :]
    chex.assert_trees_all_close(permuted, parity[..., order], rtol=1e-5, atol=1e-6)
    pieces[..., 0] += 1
    other = code.encode(params, pieces)[SHAPE.k :]
    chex.assert_trees_all_close(other[..., 1:], parity[..., 1:], rtol=1e-5, atol=1e-6)
    assert not np.allclose(other[..., 0], parity[..., 0], atol=1e-2)


@pytest.mark.parametrize("systematic", [True, False])
@pytest.mark.parametrize("name", ["mlp", "conv"])
def test_encoder_by_hand(name, systematic):
    # Hidden: the pieces. Parity: combinations of what ReLU leaves of them, negative,
    # so that a ReLU after the last layer would show.
    h, w, _ = SHAPE.piece
    combination = -np.array([[1.0, 3.0], [2.0, 4.0]], np.float32)  # [k, r]
    if name == "mlp":
        code = learned(SHAPE, systematic=systematic)
        kernels = [np.eye(2 * h * w), np.kron(combination, np.eye(h * w))]
        layers = [f"Dense_{i}" for i in range(2)]
        net = lambda layers: layers
    else:
        code = learned(
            SHAPE,
            encoder="conv",
            encoder_width=2,
            dilations=(3,),
            systematic=systematic,
        )
        centre = np.zeros((3, 3, 2, 2))
        centre[1, 1] = np.eye(2)
        kernels = [centre, combination[None, None]]
        layers = [f"Conv_{i}" for i in range(2)]
        net = lambda layers: {"DilatedStack_0": layers}
    weights = {
        layer: {"kernel": kernel.astype("f"), "bias": np.zeros(kernel.shape[-1], "f")}
        for layer, kernel in zip(layers, kernels, strict=True)
    }
    params = {"encoder": {"params": net(weights)}}
    pieces = random_pieces()
    first, second = np.maximum(pieces, 0)
    expected = [-(first + 2 * second), -(3 * first + 4 * second)]
    if systematic:  # and sums of the pieces beside the network
        params["sums"] = np.array([[0.5, 0.0], [2.0, -1.0]], np.float32)
        expected[0] += 0.5 * pieces[0] + 2 * pieces[1]
        expected[1] -= pieces[1]
    queries = jax.jit(code.encode)(params, pieces)
    chex.assert_trees_all_close(list(queries[2:]), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("k, r", [(2, 1), (4, 2), (5, 5)])
def test_parity_starts_as_orthonormal_sums(k, r):
    sums = np.asarray(cosines(k, r))
    np.testing.assert_allclose(sums.T @ sums, np.eye(r), atol=1e-6)
    np.testing.assert_allclose(sums[:, 0], 1 / np.sqrt(k), rtol=1e-6)
    shape = CodeShape(k, r, SHAPE.piece, SHAPE.share)
    init = jax.jit(lambda key: learned(shape).init(key)["sums"])
    np.testing.assert_allclose(init(jax.random.key(0)), sums, rtol=1e-6)
    plain = jax.eval_shape(learned(shape, systematic=False).init, jax.random.key(0))
    assert "sums" not in plain


@pytest.mark.parametrize("k, r", [(2, 1), (4, 2), (5, 5)])
def test_sums_without_differences(k, r):
    sums = np.asarray(powers(k, r))
    np.testing.assert_allclose(np.square(sums).sum(0), 1, rtol=1e-6)
    np.testing.assert_allclose(sums[:, 0], 1 / np.sqrt(k), rtol=1e-6)
    assert (sums > 0).all() and np.linalg.matrix_rank(sums) == min(k, r)
    shape = CodeShape(k, r, SHAPE.piece, SHAPE.share)
    init = jax.jit(lambda key: learned(shape, sums="power").init(key)["sums"])
    np.testing.assert_allclose(init(jax.random.key(0)), sums, rtol=1e-6)


@pytest.mark.parametrize("name", LEARNED)
def test_systematic_decoders_reach_values_below_zero(name):
    code, params = make(name)
    shares = code.decode(params, -random_features(), available((0,), SHAPE.n))
    assert (np.asarray(shares[0]) < 0).any()


@pytest.mark.parametrize("systematic", [True, False])
@pytest.mark.parametrize("name", MLP_AND_CONV)
def test_decoder_by_hand(name, systematic):
    # Every kernel picks inputs, and the first one those of results 1 and 2 of 0..3.
    options = LEARNED[name]
    if "conv" in name:  # one hidden layer, as wide as the output
        width = SHAPE.k * (1 if name in INDEPENDENT else SHAPE.share[-1])
        options = options | dict(decoder_width=width, dilations=(1,), kernel=1)
    code = learned(SHAPE, **options, systematic=systematic)

    def pick(x):
        if x.ndim == 1:
            return np.zeros(x.shape, "f")
        *window, inputs, outputs = x.shape
        first = 0 if inputs == outputs else inputs // SHAPE.n
        return np.eye(inputs, outputs, -first, "f").reshape(x.shape)

    params = jax.tree.map(pick, jax.eval_shape(code.init, jax.random.key(0)))
    features = random_features()
    if not systematic:
        shares = jax.jit(code.decode)(params, features, np.ones((SHAPE.n, 1), bool))
        np.testing.assert_array_equal(shares, np.maximum(features[1:3], 0))
        return
    # Both shares are lost: their estimates stand in their places.
    lost = (0, 1)
    params["sums"] = np.array([[0.5, 0.0], [2.0, -1.0]], np.float32)
    estimate = ridge(params["sums"], features, lost)
    picked = np.stack([estimate[1], features[2]])
    expected = estimate + np.maximum(picked, 0)  # the hidden layers have a ReLU
    shares = jax.jit(code.decode)(params, features, available(lost, SHAPE.n))
    np.testing.assert_allclose(shares, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", LEARNED)
def test_decoder_channels(name):
    code, params = make(name, systematic=False)
    features = random_features()
    mask = np.ones((SHAPE.n, 1), bool)
    decode = lambda features: code.decode(params, features, mask)
    order = np.array([3, 1, 0, 2])
    alike = np.allclose(
        decode(features[..., order]), decode(features)[..., order], atol=1e-5
    )
    brighter = features + np.array([1, 0, 0, 0], "f")
    other = decode(brighter) - decode(features)
    alone = np.allclose(other[..., 1:], 0, atol=1e-5)
    assert not np.allclose(other[..., 0], 0, atol=1e-2)
    assert (alike, alone) == (name in INDEPENDENT,) * 2


@pytest.mark.parametrize(
    "dilations, kernel",
    [((1, 1, 2, 4, 8, 1), 3), ((1, 3), 3), ((2,), 5), ((4,), 1), ((), 3)],
    ids=str,
)
def test_an_impulse_reaches_as_far_as_kernels_and_dilations(dilations, kernel):
    net = DilatedStack(out=1, width=2, dilations=dilations, kernel=kernel)
    extent = 1 + (kernel - 1) * sum(dilations)
    size = extent + 4
    impulse = np.zeros((1, size, size, 1), np.float32)
    impulse[0, size // 2, size // 2] = 1
    params = jax.eval_shape(net.init, jax.random.key(0), impulse)
    # Weights above 0 cancel nothing, and no bias shifts anything.
    params = jax.tree.map(lambda x: np.full(x.shape, x.ndim > 1, "f"), params)
    (response,) = np.asarray(jax.jit(net.apply)(params, impulse))[..., 0]
    for axis in (0, 1):
        (reached,) = response.any(axis).nonzero()
        assert reached[[0, -1]].tolist() == [2, 2 + extent - 1]


@pytest.mark.parametrize("size, alike", [((4, 4), (4, 8)), ((2, 4), (4, 8, 100))])
def test_dilations_of_a_maps_size_or_more_are_convolutions_with_kernel_1(size, alike):
    # The paper's dilation of 8 on features of 4x4: 8 of 9 taps see padding alone.
    x = np.random.default_rng(0).normal(size=(3, *size, 5)).astype(np.float32)
    net = lambda dilation: DilatedStack(2, 4, (dilation,))
    params = jax.jit(net(1).init)(jax.random.key(0), x)
    middle = lambda w: w[1:2, 1:2] if w.ndim == 4 and len(w) == 3 else w
    pointwise = DilatedStack(2, 4, (1,), kernel=1)
    expected = pointwise.apply(jax.tree.map(middle, params), x)
    for dilation in alike:
        np.testing.assert_array_equal(net(dilation).apply(params, x), expected)
    for dilation in (1, 2):
        assert not np.allclose(net(dilation).apply(params, x), expected)


@pytest.mark.parametrize("name", LEARNED)
def test_paper_decoder_regenerates_and_systematic_fills_the_gaps(name):
    # All weights zero and the last bias 7: a decoder that says 7 whatever arrives.
    code, params = make(name, systematic=False)
    systematic, _ = make(name)
    last = max(jax.tree.leaves(_layers(params["decoder"])))
    params = jax.tree.map_with_path(
        lambda path, x: np.full_like(
            x, 7 if path[-1].key == "bias" and path[-2].key == last else 0
        ),
        params,
    )
    features = random_features()
    sums = np.array([[0.5, 0.0], [2.0, -1.0]], np.float32)
    for lost in patterns_up_to(SHAPE.n, SHAPE.r):
        mask = available(lost, SHAPE.n)
        assert (np.asarray(code.decode(params, features, mask)) == 7).all()
        shares = systematic.decode({**params, "sums": sums}, features, mask)
        estimate = ridge(sums, features, lost)
        for i in range(SHAPE.k):
            if i in lost:
                expected = estimate[i] + 7
                np.testing.assert_allclose(shares[i], expected, rtol=1e-4, atol=1e-5)
            else:
                np.testing.assert_array_equal(shares[i], features[i])


def ridge(sums, features, lost):
    """`linear_estimate` as least squares on the results, and on a zero per share."""
    k, n = len(sums), len(features)
    kept = [i for i in range(n) if i not in lost]
    rows = np.concatenate([np.concatenate([np.eye(k), sums.T])[kept], np.eye(k)])
    values = features.reshape(n, -1)[kept]
    values = np.concatenate([values, np.zeros((k, values.shape[1]))])
    shares, *_ = np.linalg.lstsq(rows, values)
    return shares.reshape(k, *features.shape[1:])


@pytest.mark.parametrize("k, r", [(2, 1), (4, 2), (3, 3)])
def test_linear_estimate_is_ridge_regression_for_every_example(k, r):
    n = k + r
    rng = np.random.default_rng(0)
    sums = rng.normal(size=(k, r)).astype("f")
    losses = patterns_up_to(n, n)
    features = rng.normal(size=(n, len(losses), 2, 3, 4)).astype("f")
    masks = np.concatenate([available(lost, n) for lost in losses], axis=1)
    given = np.where(masks[:, :, None, None, None], features, 0)
    together = jax.jit(linear_estimate)(sums, given, masks)
    for i, lost in enumerate(losses):
        expected = ridge(sums, features[:, i], lost)
        np.testing.assert_allclose(together[:, i], expected, rtol=1e-3, atol=1e-4)
        alone = linear_estimate(sums, given[:, i : i + 1], available(lost, n))
        np.testing.assert_allclose(alone[:, 0], expected, rtol=1e-3, atol=1e-4)
        if set(range(k, n)) <= set(lost):  # of data alone, zeros for the lost
            assert not np.asarray(together)[[j for j in lost if j < k], i].any()


def _layers(params):
    """The names of the layers that hold a bias."""
    paths = jax.tree.leaves_with_path(params)
    return [path[-2].key for path, _ in paths if path[-1].key == "bias"]


@pytest.mark.parametrize("name", LEARNED)
def test_decoders_are_never_negative(name):
    code, params = make(name, systematic=False)
    shares = np.asarray(
        code.decode(params, random_features(), np.ones((SHAPE.n, 1), bool))
    )
    assert shares.min() == 0 < shares.max()


@pytest.mark.parametrize("systematic", [True, False])
@pytest.mark.parametrize("name", ["mlp", "conv", "no_parity"])
def test_garbage_in_lost_slots_leaks_nowhere(name, systematic):
    code, params = make(name, systematic)
    # Every example loses others, the last nothing.
    mask = np.array([[0, 1, 1], [1, 0, 1], [1, 0, 1], [0, 1, 1]], bool)
    features = random_features()

    @jax.jit
    def outcome(params, features):
        loss = lambda *args: (code.decode(*args, mask) ** 2).sum()
        gradients = jax.grad(loss, argnums=(0, 1))(params, features)
        return code.decode(params, features, mask), gradients

    lost = ~mask[:, :, None, None, None]
    clean = outcome(params, np.where(lost, np.float32(0), features))
    chex.assert_tree_all_finite(clean)
    for garbage in np.array([np.nan, np.inf, -3e38], np.float32):
        dirty = outcome(params, np.where(lost, garbage, features))
        chex.assert_trees_all_equal(dirty, clean)
    to_features = np.asarray(clean[1][1])
    assert not to_features[~mask].any() and to_features[mask].any()


@pytest.mark.parametrize("name", [*LEARNED, "zero_fill", "no_parity"])
def test_availability_per_example_and_for_all_agree(name):
    code, params = make(name)
    features = random_features()
    masks = [available(lost, SHAPE.n) for lost in [(), (0, 3), (1, 2)]]
    together = code.decode(params, features, np.concatenate(masks, axis=1))
    for i, mask in enumerate(masks):
        alone = code.decode(params, features, mask)
        chex.assert_trees_all_close(together[:, i], alone[:, i], rtol=1e-5, atol=1e-6)
        repeated = code.decode(params, features, np.repeat(mask, B, axis=1))
        chex.assert_trees_all_close(repeated, alone, rtol=1e-5, atol=1e-6)


def test_zero_fill():
    code, params = make("zero_fill")
    assert params == {}
    pieces, features = random_pieces(), random_features()
    assert not np.asarray(code.encode(params, pieces)[SHAPE.k :]).any()
    for lost in patterns_up_to(SHAPE.n, SHAPE.n):
        expected = np.array(features[: SHAPE.k])
        expected[[i for i in lost if i < SHAPE.k]] = 0
        dirty = features.copy()
        dirty[list(lost)] = np.nan
        shares = code.decode(params, dirty, available(lost, SHAPE.n))
        np.testing.assert_array_equal(shares, expected)


@pytest.mark.parametrize("systematic", [True, False])
def test_no_parity_keeps_a_decoder_that_never_sees_parity(systematic):
    code, params = make("no_parity", systematic)
    coded, coded_params = make("mlp", systematic)
    assert params.keys() == coded_params.keys() - {"encoder"}
    assert not np.asarray(code.encode(params, random_pieces())[SHAPE.k :]).any()
    features = random_features()
    other = features.copy()
    other[SHAPE.k :] = np.nan
    parity = set(range(SHAPE.k, SHAPE.n))
    for lost in patterns_up_to(SHAPE.n, SHAPE.r):
        mask = available(lost, SHAPE.n)
        shares = code.decode(params, features, mask)
        np.testing.assert_array_equal(code.decode(params, other, mask), shares)
        # It is the code itself, with the same decoder and all parity lost.
        expected = coded.decode(
            coded_params | params, features, available(parity | set(lost), SHAPE.n)
        )
        chex.assert_trees_all_close(shares, expected, rtol=1e-6, atol=1e-6)


def test_init():
    code = learned(SHAPE)
    params = jax.jit(code.init)(jax.random.key(0))
    chex.assert_trees_all_equal(jax.jit(code.init)(jax.random.key(0)), params)
    other = jax.jit(code.init)(jax.random.key(1))
    for half in ("encoder", "decoder"):
        kernels = [p[half]["params"]["Dense_0"]["kernel"] for p in (params, other)]
        assert not np.isclose(*kernels).any()
    # So that the two differ by nothing but parity when they are trained.
    withheld = jax.jit(no_parity(SHAPE, code).init)(jax.random.key(0))
    del params["encoder"]
    chex.assert_trees_all_equal(withheld, params)


@pytest.mark.parametrize(
    "argument, value, accepted",
    [
        ("encoder", "cnn", r"\['mlp', 'conv', 'strided', 'local', 'linear'\]"),
        (
            "decoder",
            "MLP",
            r"\['mlp', 'low_rank', 'conv', 'local', 'pointwise', 'linear'\]",
        ),
        ("decoder_channels", "both", r"\['joint', 'independent'\]"),
    ],
)
def test_what_is_not_accepted_is_named(argument, value, accepted):
    with pytest.raises(ValueError, match=f"^{argument}: '{value}' .*{accepted}"):
        learned(SHAPE, **{argument: value})


@pytest.mark.parametrize("make_code", [learned, zero_fill])
def test_codes_are_static_arguments(make_code):
    code = make_code(SHAPE)
    encode = jax.jit(lambda code, *args: code.encode(*args), static_argnums=0)
    params = jax.eval_shape(code.init, jax.random.key(0))
    out = jax.eval_shape(functools.partial(encode, code), params, random_pieces())
    assert out.shape == (SHAPE.n, B, *SHAPE.piece) and hash(code) == hash(code)


def test_a_locally_connected_layer_by_hand():
    """3x3 windows with weights of their own at every position, zeros around the map."""
    stack = LocalStack(out=1, width=1)
    x = np.abs(np.random.default_rng(0).normal(size=(1, 4, 3, 2))).astype("f")
    params = jax.jit(stack.init)(jax.random.key(0), x)
    params = jax.tree.map(lambda leaf: np.abs(leaf) + 0.1, params)
    padded = np.pad(x[0], ((1, 1), (1, 1), (0, 0)))
    expected = padded
    for i in range(2):
        layer = params["params"][f"Local_{i}"]
        expected = np.array(
            [
                [
                    expected[a : a + 3, b : b + 3].ravel() @ layer["kernel"][a, b, :, 0]
                    + layer["bias"][a, b, 0]
                    for b in range(3)
                ]
                for a in range(4)
            ]
        )
        if i == 0:
            expected = np.pad(expected[..., None], ((1, 1), (1, 1), (0, 0)))
    found = stack.apply(params, x)[0, :, :, 0]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_blocks_and_back():
    maps = np.arange(2 * 8 * 12 * 3, dtype="f").reshape(2, 8, 12, 3)
    blocks = to_blocks(maps)
    assert blocks.shape == (2, 2, 3, 48)
    np.testing.assert_array_equal(blocks[0, 1, 2], maps[0, 4:8, 8:12].ravel())
    np.testing.assert_array_equal(from_blocks(blocks, 3), maps)
    ragged = to_blocks(maps[:, :7, :9])
    assert ragged.shape == (2, 2, 3, 48) and not ragged[:, 1, 2, 36:].any()


def test_a_strided_encoder_moves_with_the_image():
    encoder = StridedEncoder(r=1, width=8)
    pieces = np.zeros((2, 1, 32, 32, 1), "f")
    pieces[:, 0, 12:20, 12:20] = np.random.default_rng(0).normal(size=(2, 8, 8, 1))
    params = jax.jit(encoder.init)(jax.random.key(0), pieces)
    parity = encoder.apply(params, pieces)
    moved = encoder.apply(params, np.roll(pieces, 4, axis=2))
    np.testing.assert_allclose(moved, np.roll(parity, 4, axis=2), atol=1e-5)


def test_pointwise_decoder_by_hand():
    """Each position by itself: two dense layers along all results' values there."""
    decoder = PointwiseDecoder(SHAPE.k, width=5, relu=False)
    features = random_features()
    params = jax.jit(decoder.init)(jax.random.key(0), features)
    first, second = (params["params"][f"Dense_{i}"]["kernel"] for i in range(2))
    assert first.shape == (SHAPE.n * 4, 5) and second.shape == (5, SHAPE.k * 4)
    at = features[:, 1, 1, 2].ravel()
    expected = (np.maximum(at @ first, 0) @ second).reshape(SHAPE.k, 4)
    found = decoder.apply(params, features)
    np.testing.assert_allclose(found[:, 1, 1, 2], expected, rtol=1e-4, atol=1e-5)


def test_rank_grows_with_the_root_of_the_depth():
    code = learned(SHAPE._replace(share=(2, 3, 16)), decoder="low_rank")
    layers = jax.jit(code.init)(jax.random.key(0))["decoder"]["params"]
    assert layers["Dense_0"]["bias"].shape == layers["Dense_1"]["bias"].shape == (7,)


def test_linear_networks_are_the_sums_and_the_estimate_alone():
    code = learned(SHAPE, encoder="linear", decoder="linear")
    params = jax.jit(code.init)(jax.random.key(0))
    assert params.keys() == {"sums"}
    pieces, features = random_pieces(), random_features()
    expected = np.einsum("kbhwc,kr->rbhwc", pieces, params["sums"])
    found = code.encode(params, pieces)
    np.testing.assert_allclose(found[SHAPE.k :], expected, rtol=1e-4, atol=1e-5)
    mask = available((0,), SHAPE.n)
    shares = code.decode(params, features, mask)
    zeroed = np.where(mask[..., None, None, None], features, 0)
    estimate = linear_estimate(params["sums"], zeroed, mask)
    np.testing.assert_allclose(shares[0], estimate[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(shares[1], features[1])


def test_a_linear_network_takes_a_systematic_code():
    with pytest.raises(ValueError, match="^decoder: 'linear' .* with recipe=paper"):
        learned(SHAPE, decoder="linear", systematic=False)


@pytest.mark.parametrize("name", ["mlp", "conv"])
def test_nonnegative_shares(name):
    plain, params = make(name)
    code = learned(SHAPE, **LEARNED[name], nonnegative=True)
    mask = available((0, 2), SHAPE.n)
    found = code.decode(params, random_features(), mask)
    expected = np.array(plain.decode(params, random_features(), mask))
    expected[0] = np.maximum(expected[0], 0)  # what arrived is left as it is
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert (expected[1] < 0).any()
