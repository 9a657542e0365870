"""What is true of every base model: sizes, shapes of its blocks, what they compose."""

import jax
import jax.numpy as jnp
import pytest

from coded_jax.models import BASE_MODELS, make_base_model
from coded_jax.models.registry import is_deep
from tests.models.published import abstract_variables, count_values, random_variables
from tests.parameters import long

RESIDUALS = [(16, 112)] + [(24, 56)] * 2 + [(32, 28)] * 3 + [(64, 14)] * 4
RESIDUALS += [(96, 14)] * 3 + [(160, 7)] * 3 + [(320, 7)]
# Name and image -> classes, parameters, maps and rows of the output of every block.
NETWORKS = {
    # 25*1*6 + 6 and 25*6*16 + 16; 256*120 + 120, 120*84 + 84 and 84*10 + 10.
    ("lenet5", (28, 28, 1)): (
        10,
        156 + 2_416 + 30_840 + 10_164 + 850,
        [(6, 24), (6, 12), (16, 8), (16, 4)],
    ),
    # 25*3*6 + 6 and as above; 400*120 + 120 and as above.
    ("lenet5", (32, 32, 3)): (
        10,
        456 + 2_416 + 48_120 + 10_164 + 850,
        [(6, 28), (6, 14), (16, 10), (16, 5)],
    ),
    # The published 14,714,688 of the thirteen convolutions are their weights and 4,224
    # biases, which a batch norm with a scale and an offset of each map stands in for.
    ("vgg16", (32, 32, 3)): (
        10,
        14_714_688 + 4_224 + 5_130,
        list(
            zip(
                (64,) * 2 + (128,) * 2 + (256,) * 3 + (512,) * 6,
                (32, 16, 16, 8, 8, 8, 4, 4, 4, 2, 2, 2, 1),
                strict=True,
            )
        ),
    ),
    # As published for CIFAR-10 with this stem.
    ("resnet18", (32, 32, 3)): (
        10,
        11_173_962,
        [(64, 32)] * 3 + [(128, 16)] * 2 + [(256, 8)] * 2 + [(512, 4)] * 2,
    ),
    # Block by block those of the published network, and the head.
    ("mobilenet", (28, 28, 1)): (
        10,
        sum([928, 896, 5_136, 8_832, 10_000, 14_848, 14_848, 21_056, 66_624])
        + 3 * 54_272
        + 2 * 118_272
        + 970
        - 2 * 9 * 32,  # of a grey image
        [(32, 28), (16, 28)]
        + [(24, 28)] * 2
        + [(32, 14)] * 3
        + [(64, 7)] * 4
        + [(96, 7)] * 3,
    ),
    ("resnet50", (224, 224, 3)): (
        1000,
        25_557_032,
        [(64, 56)]
        + [(256, 56)] * 3
        + [(512, 28)] * 4
        + [(1024, 14)] * 6
        + [(2048, 7)] * 3,
    ),
    ("mobilenet_v2", (224, 224, 3)): (
        1000,
        3_504_872,
        [(32, 112), *RESIDUALS, (1280, 7)],
    ),
}


def test_every_network_is_in_the_table():
    others = {"mlp", "unet"}  # with tests of their own
    assert {name for name, _ in NETWORKS} | others == {*BASE_MODELS}
    deep = {"vgg16", "resnet18", "resnet50", "mobilenet", "mobilenet_v2"}
    assert {name for name in BASE_MODELS if is_deep(name)} == deep
    assert not is_deep("own")  # a network of the user's


@pytest.mark.parametrize("name, image_shape", NETWORKS)
def test_parameters_are_those_published(name, image_shape):
    classes, parameters, blocks = NETWORKS[name, image_shape]
    counts = count_values(abstract_variables(name, image_shape, classes), "params")
    assert sum(counts.values()) == parameters
    if is_deep(name):
        assert counts["head"] == (blocks[-1][0] + 1) * classes


@pytest.mark.parametrize("name, image_shape", NETWORKS)
def test_blocks_compose_the_network(name, image_shape):
    """Also of other sizes of images, and of a narrow network."""
    *_, blocks = NETWORKS[name, image_shape]
    width = 1 / 8 if is_deep(name) else 1.0
    base = make_base_model(name, width)
    variables = abstract_variables(name, image_shape, 7, width)
    images = x = jax.ShapeDtypeStruct((3, *image_shape), jnp.float32)
    shapes = []
    for block in base.blocks:
        x = jax.eval_shape(block, variables, x)
        shapes.append(x.shape)
    assert shapes == [(3, rows, rows, int(maps * width)) for maps, rows in blocks]
    assert jax.eval_shape(base.f_conv, variables, images) == x
    logits = jax.eval_shape(base.head, variables, x)
    assert (logits.shape, logits.dtype) == ((3, 7), jnp.float32)


@pytest.mark.parametrize(
    "name, linear, size",
    [
        ("resnet18", range(9), 28),
        *long(
            ("vgg16", range(13), 28),
            ("mobilenet", range(14), 28),
            ("resnet50", range(17), 64),
        ),
    ],
)
def test_blocks_may_leave_their_relu_to_the_next(name, linear, size):
    base = make_base_model(name, 1 / 16)
    cut = make_base_model(name, 1 / 16, preactivations=True)
    variables = random_variables(base, (size, size, 1))
    x = y = jax.random.normal(jax.random.key(1), (2, size, size, 1))
    lowest = []
    for block, linear_block in zip(base.blocks, cut.blocks, strict=True):
        x, y = block(variables, x), linear_block(variables, y)
        lowest.append(float(y.min()))
        is_relu = jnp.array_equal(x, jax.nn.relu(y))
        assert is_relu or jnp.array_equal(x, y)
    assert [i for i in range(len(lowest)) if lowest[i] < 0] == list(linear)
    assert jnp.array_equal(base.head(variables, x), cut.head(variables, y))
    images = jax.random.normal(jax.random.key(2), (2, size, size, 1))
    for ours, theirs in zip(
        jax.tree.leaves(base.train(variables, images)),
        jax.tree.leaves(cut.train(variables, images)),
        strict=True,
    ):
        assert jnp.array_equal(ours, theirs)


@pytest.mark.parametrize(
    "argument, call",
    [
        ("base_model", lambda: make_base_model("lenet")),
        ("preactivations", lambda: make_base_model("lenet5", preactivations=True)),
        ("preactivations", lambda: make_base_model("mlp", preactivations=True)),
        (
            "image_shape",  # no multiple of 4
            lambda: make_base_model("unet").init(jax.random.key(0), (30, 64, 1), 11),
        ),
    ],
)
def test_what_is_not_accepted_is_named(argument, call):
    with pytest.raises(ValueError, match=f"^{argument}: ") as e:
        call()
    assert "\n" not in str(e.value)


def test_some_maps_are_always_left():
    narrow = abstract_variables("vgg16", (28, 28, 1), width=1e-3)
    assert narrow["head"]["params"]["logits"]["kernel"].shape == (1, 10)
    lenet = abstract_variables("lenet5", (28, 28, 1), width=0.5)["f_conv"]["params"]
    assert [lenet[f"Conv_{i}"]["bias"].shape for i in (0, 1)] == [(3,), (8,)]
