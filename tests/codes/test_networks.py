"""Encoders and decoders: numbers of parameters, receptive fields, layers by hand."""

import chex
import jax
import numpy as np
import pytest

from coded_jax.codes.networks import DECODERS
from coded_jax.codes.networks.conv import (
    DilatedStack,
    LocalStack,
    from_blocks,
    to_blocks,
)
from coded_jax.codes.networks.network import NetworkSpec
from coded_jax.types import CodeShape
from tests.codes.learned_examples import (
    SHAPE,
    random_features,
    random_pieces,
)
from tests.pipelines import learned

# Of codes for 28x28 images in `k` pieces of `h` rows and LeNet-5's features: the half,
# its network, k, r, h, and parameters with biases (Tables I and II).
PARAMETERS = [
    # k*h*w -> k*h*w -> r*h*w.
    ("encoder", "mlp", 2, 1, 20, 1_883_280),  # as the paper says, too
    ("encoder", "mlp", 4, 2, 16, 1792 * 1792 + 1792 + 1792 * 896 + 896),
    # n*D*M*M' -> k*D*M*M' -> k*D*M*M' -> k*D*M*M'.
    ("decoder", "mlp", 2, 1, 20, 384 * 256 + 256 + 2 * (256 * 256 + 256)),
    # 3x3 from k to 20*k maps, five more 3x3, 1x1 to r maps.
    ("encoder", "conv", 2, 1, 20, 9 * 2 * 40 + 40 + 5 * (9 * 40 * 40 + 40) + 41),
    # Likewise: n maps in and k out.
    ("decoder", "conv", 4, 2, 20, 55 * 120 + 5 * (9 * 120 * 120 + 120) + 121 * 4),
]


@pytest.mark.parametrize("half, name, k, r, h, expected", PARAMETERS)
def test_parameters_are_those_of_the_paper(half, name, k, r, h, expected):
    shape = CodeShape(k, r, piece=(h, 28, 1), share=(4 // k, 4, 16))
    code = learned(shape, encoder=name, decoder=name)
    params = jax.eval_shape(code.init, jax.random.key(0))[half]
    assert sum(x.size for x in jax.tree.leaves(params)) == expected


@pytest.mark.parametrize("name, systematic", [("mlp", True), ("conv", False)])
def test_encoder_by_hand(name, systematic):
    # Hidden: the pieces. Parity: combinations of what ReLU leaves of them, negative,
    # so that a ReLU after the last layer would show.
    h, w, _ = SHAPE.piece
    combination = -np.array([[1.0, 3.0], [2.0, 4.0]], np.float32)  # [k, r]
    settings = dict(encoder_width=2, dilations=(3,)) if name == "conv" else {}
    code = learned(SHAPE, systematic, encoder=name, **settings)
    if name == "mlp":
        kernels = [np.eye(2 * h * w), np.kron(combination, np.eye(h * w))]
    else:
        centre = np.zeros((3, 3, 2, 2))
        centre[1, 1] = np.eye(2)
        kernels = [centre, combination[None, None]]
    weights = {
        f"{'Dense' if name == 'mlp' else 'Conv'}_{i}": {
            "kernel": kernel.astype("f"),
            "bias": np.zeros(kernel.shape[-1], "f"),
        }
        for i, kernel in enumerate(kernels)
    }
    weights = weights if name == "mlp" else {"DilatedStack_0": weights}
    params = {"encoder": {"params": weights}}
    pieces = random_pieces()
    first, second = np.maximum(pieces, 0)
    expected = [-(first + 2 * second), -(3 * first + 4 * second)]
    if systematic:  # and sums of the pieces beside the network
        params["sums"] = np.array([[0.5, 0.0], [2.0, -1.0]], np.float32)
        expected[0] += 0.5 * pieces[0] + 2 * pieces[1]
        expected[1] -= pieces[1]
    queries = jax.jit(code.encode)(params, pieces)
    chex.assert_trees_all_close(list(queries[2:]), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "dilations, kernel",
    [((1, 1, 2, 4, 8, 1), 3), ((2,), 5), ((), 3)],
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


def test_a_locally_connected_layer_by_hand():
    """3x3 windows with weights of their own at every position, zeros around the map."""
    stack = LocalStack(out=1, width=1)
    x = np.abs(np.random.default_rng(0).normal(size=(1, 4, 3, 2))).astype("f")
    params = jax.jit(stack.init)(jax.random.key(0), x)
    params = jax.tree.map(lambda leaf: np.abs(leaf) + 0.1, params)
    expected = x[0]
    for i in range(2):
        layer = params["params"][f"Local_{i}"]
        padded = np.pad(expected, ((1, 1), (1, 1), (0, 0)))
        expected = np.zeros((4, 3, 1))
        for a, b in np.ndindex(4, 3):
            window = padded[a : a + 3, b : b + 3].ravel()
            expected[a, b] = window @ layer["kernel"][a, b] + layer["bias"][a, b]
    outputs = stack.apply(params, x)[0]
    np.testing.assert_allclose(outputs, expected, rtol=1e-5)


def test_blocks_and_back():
    maps = np.arange(2 * 8 * 12 * 3, dtype="f").reshape(2, 8, 12, 3)
    blocks = to_blocks(maps)
    assert blocks.shape == (2, 2, 3, 48)
    np.testing.assert_array_equal(blocks[0, 1, 2], maps[0, 4:8, 8:12].ravel())
    np.testing.assert_array_equal(from_blocks(blocks, 3), maps)
    ragged = to_blocks(maps[:, :7, :9])
    assert ragged.shape == (2, 2, 3, 48) and not ragged[:, 1, 2, 36:].any()


def test_pointwise_decoder_by_hand():
    """Each position by itself: two dense layers along all results' values there."""
    spec = NetworkSpec(SHAPE, SHAPE.k, 5, (1,), joint=True)
    decoder = DECODERS["pointwise"].build(spec)
    features = random_features()
    params = jax.jit(decoder.init)(jax.random.key(0), features)
    first, second = (params["params"][f"Dense_{i}"]["kernel"] for i in range(2))
    assert first.shape == (SHAPE.n * 4, 5) and second.shape == (5, SHAPE.k * 4)
    at = features[:, 1, 1, 2].ravel()
    expected = (np.maximum(at @ first, 0) @ second).reshape(SHAPE.k, 4)
    shares = decoder.apply(params, features)
    np.testing.assert_allclose(shares[:, 1, 1, 2], expected, rtol=1e-4, atol=1e-5)
