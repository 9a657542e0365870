"""Well-known networks, narrow and untrained, are split exactly; others are refused."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx
from jax import lax

from coded_jax.splitting import cut, merge, split
from coded_jax.splitting.plan import make_plan

norm = functools.partial(nn.BatchNorm, use_running_average=True)
conv = functools.partial(nn.Conv, use_bias=False)


class VGG(nn.Module):
    """Stacks of 3x3 convolutions, each ending in a 2x2 pool, up to where it is cut."""

    depths: tuple[int, ...]

    @nn.compact
    def __call__(self, x):
        for i, depth in enumerate(self.depths):
            for _ in range(depth):
                x = nn.relu(norm()(nn.Conv(4 * 2**i, (3, 3))(x)))
            x = nn.max_pool(x, (2, 2), (2, 2))
        return x


class ResNet(nn.Module):
    """Basic blocks, with the stem for CIFAR or that for ImageNet.

    `option_a`: shortcuts subsample and add channels of zeros, as the paper has it for
    CIFAR; else they are 1x1 convolutions.
    """

    depths: tuple[int, ...]
    imagenet_stem: bool = False
    option_a: bool = False

    def block(self, x, features, stride):
        strides = (stride, stride)
        y = nn.relu(norm()(conv(features, (3, 3), strides, padding=1)(x)))
        y = norm()(conv(features, (3, 3), padding=1)(y))
        if x.shape != y.shape and self.option_a:
            more = features - x.shape[-1]
            x = jnp.pad(x[:, ::stride, ::stride], ((0, 0), (0, 0), (0, 0), (0, more)))
        elif x.shape != y.shape:
            x = norm()(conv(features, (1, 1), strides)(x))
        return nn.relu(x + y)

    @nn.compact
    def __call__(self, x):
        if self.imagenet_stem:
            x = nn.relu(norm()(conv(4, (7, 7), (2, 2), padding=3)(x)))
            x = nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))
        else:
            x = nn.relu(norm()(conv(4, (3, 3), padding=1)(x)))
        for i, depth in enumerate(self.depths):
            for j in range(depth):
                x = self.block(x, 4 * 2**i, 2 if i > 0 and j == 0 else 1)
        return x


class MobileNetV2(nn.Module):
    """Inverted residuals: 1x1 to more channels, 3x3 on each of them, 1x1 to few."""

    blocks: tuple[tuple[int, int], ...]  # features and stride

    @nn.compact
    def __call__(self, x):
        x = nn.relu6(norm()(conv(4, (3, 3), (2, 2))(x)))
        for features, stride in self.blocks:
            inner = 3 * x.shape[-1]
            y = nn.relu6(norm()(conv(inner, (1, 1))(x)))
            depthwise = conv(inner, (3, 3), (stride, stride), feature_group_count=inner)
            y = norm()(conv(features, (1, 1))(nn.relu6(norm()(depthwise(y)))))
            x = x + y if x.shape == y.shape else y
        return x


class Dilated(nn.Module):
    """A context network: dilations 1, 2, 4 without stride."""

    @nn.compact
    def __call__(self, x):
        for dilation in (1, 2, 4, 1):
            x = nn.elu(nn.Conv(4, (3, 3), kernel_dilation=(dilation, dilation))(x))
        return nn.Dense(3)(nn.LayerNorm()(x))


class DenseNet(nn.Module):
    """Two dense blocks with a transition that averages."""

    @nn.compact
    def __call__(self, x):
        x = conv(4, (3, 3))(x)
        for block in range(2):
            for _ in range(2):
                y = conv(8, (1, 1))(nn.relu(norm()(x)))
                y = conv(4, (3, 3))(nn.relu(norm()(y)))
                x = jnp.concatenate([x, y], axis=-1)
            if block == 0:
                x = conv(6, (1, 1))(nn.relu(norm()(x)))
                x = nn.avg_pool(x, (2, 2), (2, 2))
        return nn.relu(norm()(x))


class Inception(nn.Module):
    """Parallel branches; the average leaves the padding out of its count."""

    @nn.compact
    def __call__(self, x):
        x = nn.gelu(nn.Conv(4, (4, 4), (2, 2), padding=((1, 2), (2, 1)))(x))
        mean = nn.avg_pool(x, (3, 3), (1, 1), "SAME", count_include_pad=False)
        wide = nn.Conv(4, (1, 5))(nn.Conv(4, (5, 1))(x))
        most = nn.max_pool(x, (3, 3), (1, 1), "SAME")
        return jnp.concatenate([x, nn.Conv(2, (1, 1))(mean), wide, most], axis=-1)


def randomised(shapes, seed=0):
    """Weights of these shapes, biases and statistics of batch norm included."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        name = jax.tree_util.keystr(path)
        fan_in = np.prod(leaf.shape[:-1]) if len(leaf.shape) > 1 else 8
        values = rng.normal(size=leaf.shape, scale=fan_in**-0.5)
        if "var" in name or "scale" in name:
            values = 1 + np.abs(values)
        return jnp.asarray(values, jnp.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def linen(module, shape):
    """`(f_conv, variables)` of a module for images of a shape."""
    image = jnp.zeros((1, *shape))
    shapes = jax.eval_shape(module.init, jax.random.key(0), image)
    return module.apply, randomised(shapes)


class NnxNet(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.Conv(3, 4, (3, 3), strides=(2, 2), rngs=rngs)
        self.norm = nnx.BatchNorm(4, use_running_average=True, rngs=rngs)
        self.second = nnx.Conv(4, 4, (3, 3), feature_group_count=4, rngs=rngs)
        self.mix = nnx.Linear(4, 6, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.norm(self.first(x)))
        return nnx.relu(self.mix(x + self.second(x)))


def flax_nnx():
    net = nnx.eval_shape(lambda: NnxNet(nnx.Rngs(0)))
    graph, state = nnx.split(net)
    return lambda state, x: nnx.merge(graph, state)(x), randomised(state)


def plain_lax():
    """Maps before rows and columns inside, groups, and shuffled channels."""
    shapes = {"in": (4, 3, 3, 3), "each": (4, 1, 3, 2), "out": (4, 2, 1, 1)}
    shapes = {name: jax.ShapeDtypeStruct(s, "float32") for name, s in shapes.items()}

    def conv(x, kernel, stride, padding, groups=1):
        return lax.conv_general_dilated(
            x,
            kernel,
            (stride, stride),
            padding,
            feature_group_count=groups,
            dimension_numbers=("NCHW", "OIHW", "NCHW"),
        )

    def f_conv(kernels, x):
        x = lax.tanh(conv(x.transpose(0, 3, 1, 2), kernels["in"], 2, "SAME") + 0.3)
        y = conv(x, kernels["each"], 1, ((1, 1), (1, 0)), groups=4) + 0.1
        y = conv(y, kernels["out"], 1, "VALID", groups=2)
        y = y.reshape(y.shape[0], 2, 2, *y.shape[2:]).swapaxes(1, 2).reshape(y.shape)
        return lax.max(x + y, jnp.zeros_like(y)).transpose(0, 2, 3, 1)

    return f_conv, randomised(shapes)


# Name -> image shape and network. Each is cut where its maps can still be split.
NETWORKS = {
    "VGG-11": ((48, 77, 3), lambda s: linen(VGG((1, 1, 2)), s)),
    "VGG-16": ((64, 48, 3), lambda s: linen(VGG((2, 2)), s)),
    "ResNet-18, CIFAR": ((61, 64, 3), lambda s: linen(ResNet((2, 2)), s)),
    "ResNet-34, CIFAR, option A": (
        (63, 80, 3),
        lambda s: linen(ResNet((3, 2), option_a=True), s),
    ),
    "ResNet-18, ImageNet": (
        (97, 112, 3),
        lambda s: linen(ResNet((2,), imagenet_stem=True), s),
    ),
    "ResNet-34, ImageNet": (
        (160, 161, 3),
        lambda s: linen(ResNet((3, 1), imagenet_stem=True), s),
    ),
    "MobileNetV2": (
        (65, 72, 3),
        lambda s: linen(MobileNetV2(((4, 1), (6, 2), (6, 1))), s),
    ),
    "dilated": ((40, 37, 3), lambda s: linen(Dilated(), s)),
    "DenseNet": ((36, 33, 3), lambda s: linen(DenseNet(), s)),
    "Inception": ((37, 30, 3), lambda s: linen(Inception(), s)),
    "flax.nnx": ((33, 26, 3), lambda s: flax_nnx()),
    "plain lax": ((33, 26, 3), lambda s: plain_lax()),
}
# Each program runs but once: three times as fast to compile.
COMPILED_QUICKLY = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
}
GRIDS = [(2, 1), (1, 3), (2, 2)]


def assert_exact(f_conv, variables, shape, grids):
    """`merge(f_conv(split(x))) == f_conv(x)` for every grid, in one compilation."""
    plans = [make_plan(f_conv, variables, shape, grid) for grid in grids]
    for plan, grid in zip(plans, grids, strict=True):
        assert plan.grid == grid and plan.work_fraction < 1
    images = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)

    def all_of_them(variables, images):
        apply = functools.partial(f_conv, variables)
        merged = [
            merge(plan, cut(plan, jax.vmap(apply)(split(plan, images))))
            for plan in plans
        ]
        return apply(images), merged

    run = jax.jit(all_of_them, compiler_options=COMPILED_QUICKLY)
    whole, merged = run(variables, images)
    scale = np.abs(whole).max()
    assert scale > 1e-2
    for one in merged:
        np.testing.assert_allclose(one, whole, rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize("name", NETWORKS)
def test_strips_and_grids_are_exact(name):
    shape, make = NETWORKS[name]
    assert_exact(*make(shape), shape, GRIDS)


def test_lenet5_is_exact(lenet):
    base, variables = lenet
    variables = randomised(jax.eval_shape(lambda: variables))
    assert_exact(base.f_conv, variables, (28, 28, 1), [(2, 1), (4, 1), (1, 2), (2, 2)])


@pytest.mark.parametrize(
    "module, layers",
    [(VGG((1, 1, 2, 2, 2)), 5), (VGG((2, 2, 3, 3, 3)), 5), (ResNet((2,) * 4), 3)],
)
def test_whole_networks_on_small_images_say_that_they_cannot_be_split(module, layers):
    f_conv, variables = linen(module, (32, 32, 3))
    with pytest.raises(ValueError, match="^k: .*end f_conv earlier|^k: .*accepted"):
        make_plan(f_conv, variables, (32, 32, 3), (2, 1))


SHAPE = (24, 20, 4)


def layer(x, kernel=(3, 3), **options):
    """A convolution with ones, to 4 maps."""
    options = {"window_strides": (1, 1), "padding": "SAME"} | options
    return lax.conv_general_dilated(
        x,
        jnp.ones((*kernel, x.shape[-1], 4)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        **options,
    )


def attention(x):
    keys = x.reshape(x.shape[0], -1, 1, 4)
    return nn.dot_product_attention(keys, keys, keys).reshape(x.shape)


def attention_over_rows(x):
    weights = nn.softmax(jnp.einsum("bhwc,bgwc->bwhg", x, x))
    return jnp.einsum("bwhg,bgwc->bhwc", weights, x)


def squeeze_and_excite(x):
    return x * nn.sigmoid(layer(x).mean((1, 2), keepdims=True))


def adaptive_pool(x):
    window = (x.shape[1] // 4, x.shape[2] // 4)
    return nn.avg_pool(layer(x), window, window)


def batch_norm_in_training(x):
    module = nn.BatchNorm(use_running_average=False)
    variables = jax.jit(module.init)(jax.random.key(0), jnp.zeros(x.shape))
    return module.apply(variables, x, mutable="batch_stats")[0]


def group_norm(x):
    module = nn.GroupNorm(2)
    return module.apply(module.init(jax.random.key(0), jnp.zeros(x.shape)), x)


def padded(x, mode):
    return layer(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode=mode))


def size_of(x, shape, method):
    return jax.image.resize(x, (x.shape[0], *shape, x.shape[-1]), method)


def different_strides(x):
    rows = layer(x, (1, 1), window_strides=(24, 1))
    return rows + layer(x, (24, 1), padding="VALID")


def position_embedding(x):
    return layer(x) + np.arange(24, dtype=np.float32)[None, :, None, None]


def dropout(x):
    keep = jax.random.bernoulli(jax.random.key(0), 0.5, x.shape)
    return jnp.where(keep, layer(x), 0.0)


def scanned(x):
    rows = layer(x).swapaxes(0, 1)
    return lax.scan(lambda c, row: (c + row, c), jnp.zeros(rows.shape[1:]), rows)[1]


# Each with words of the message; all of them also say what can be done.
REFUSED = {
    "global pooling": (lambda x: layer(x).mean((1, 2)), "global pooling"),
    "global maximum": (lambda x: layer(x).max((1, 2)), "global pooling"),
    "squeeze and excite": (squeeze_and_excite, "global pooling"),
    "group norm": (group_norm, "norm over positions"),
    "flatten": (lambda x: layer(x).reshape(x.shape[0], -1), "flatten"),
    "attention": (attention, "flatten"),
    "attention over rows": (attention_over_rows, "attention"),
    "adaptive pooling": (adaptive_pool, "depends on the size of the image"),
    "a part of the image": (lambda x: x[:, :14], "depends on the size of the image"),
    "reflect padding": (lambda x: padded(x, "reflect"), "reflect"),
    "wrap padding": (lambda x: padded(x, "wrap"), "wrap"),
    "edge padding": (lambda x: padded(x, "edge"), "edge padding"),
    "position embedding": (position_embedding, "position embedding"),
    "dropout": (dropout, "random numbers"),
    "batch norm": (batch_norm_in_training, "batch norm in training mode"),
    "scan over rows": (scanned, "'scan'"),
    "image as window": (lambda x: layer(x, (47, 39)), "all 24 rows"),
    "one row": (lambda x: layer(x, (24, 1), padding="VALID"), "1 rows"),
    "different strides": (different_strides, "different strides"),
    "a fixed size": (lambda x: size_of(x, (48, 40), "nearest"), "depends on the size"),
    "resize to a size": (
        lambda x: size_of(x, (48, 40), "linear"),
        "depends on the size",
    ),
    "resize by no factor": (lambda x: size_of(x, (31, 20), "linear"), "positions"),
    "weights by the size": (
        lambda x: jnp.einsum("bhwc,hg->bgwc", x, jnp.eye(x.shape[1]) / x.shape[1]),
        "depends on the size",
    ),
    "a branch by the size": (
        lambda x: lax.cond(jnp.ones(x.shape[1]).sum() > 20, layer, jnp.tanh, x),
        "depends on the size",
    ),
    "repeat unevenly": (
        lambda x: jnp.repeat(x, np.arange(24) % 3, axis=1, total_repeat_length=24),
        "indexes rows",
    ),
    "mixed rows": (
        lambda x: jnp.einsum("bhwc,hg->bgwc", x, jnp.ones((24, 24))),
        "over positions",
    ),
    "fft": (lambda x: jnp.fft.fft2(x, axes=(1, 2)).real, "'fft'"),
    "rows and columns": (lambda x: layer(x).swapaxes(1, 2), "transpose"),
    "no image": (lambda x: jnp.ones((2, 4, 4, 2)), "does not depend"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_split_is_refused_in_a_line(name):
    f, words = REFUSED[name]
    with pytest.raises(ValueError, match=words) as error:
        make_plan(lambda variables, x: f(x), {}, SHAPE, (2, 1))
    message = str(error.value)
    assert "\n" not in message and message.startswith(("f_conv: ", "k: "))
    ways_out = ("head", "earlier", "accepted", "does not depend")
    assert any(way in message for way in ways_out)


def test_batch_norm_without_a_place_for_its_statistics():
    module = nn.BatchNorm(use_running_average=False)
    variables = jax.jit(module.init)(jax.random.key(0), jnp.zeros((1, *SHAPE)))
    words = r"^f_conv: fails for images \(24, 20, 4\): .*batch_stats"
    with pytest.raises(ValueError, match=words) as error:
        make_plan(module.apply, variables, SHAPE, (2, 1))
    assert "\n" not in str(error.value)


def test_refusals_name_the_module():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Conv(4, (3, 3), name="stem")(x)
            return nn.MultiHeadDotProductAttention(2, name="mixer")(x, x)

    f_conv, variables = linen(Net(), SHAPE)
    with pytest.raises(ValueError, match="mixer"):
        make_plan(f_conv, variables, SHAPE, (2, 1))


def test_uneven_sizes_and_numbers_of_pieces():
    """Layers that leave remainders, over all sizes modulo the stride."""

    def f(x):
        x = layer(x, (5, 4), window_strides=(2, 2), padding=((1, 2), (2, 0))) / 80 + 0.2
        x = nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (0, 1)))
        return nn.tanh(layer(x, (2, 3)) / 20) + 0.1 * x

    for height, width in itertools.product((41, 42, 43, 44), (47, 50)):
        grids = [(3, 1), (4, 1), (1, 4), (2, 3)]
        assert_exact(lambda _, x: f(x), {}, (height, width, 2), grids)
