"""Base models by name, and the shapes of their blocks."""

import jax
import jax.numpy as jnp
import pytest

from coded_jax.models import BASE_MODELS, make_base_model
from coded_jax.models.registry import is_deep
from tests.models.published import abstract_variables, random_variables

MAPS = {
    "vgg16": (64,) * 2 + (128,) * 2 + (256,) * 3 + (512,) * 6,
    "resnet18": (64,) * 3 + (128,) * 2 + (256,) * 2 + (512,) * 2,
    "mobilenet": (32, 16) + (24,) * 2 + (32,) * 3 + (64,) * 4 + (96,) * 3,
}
# Rows of the maps of every block, for images of 28 and of 32.
ROWS = {
    ("vgg16", 28): (28, 14, 14, 7, 7, 7, 4, 4, 4, 2, 2, 2, 1),
    ("vgg16", 32): (32, 16, 16, 8, 8, 8, 4, 4, 4, 2, 2, 2, 1),
    ("resnet18", 28): (28, 28, 28, 14, 14, 7, 7, 4, 4),
    ("resnet18", 32): (32, 32, 32, 16, 16, 8, 8, 4, 4),
    ("mobilenet", 28): (28,) * 4 + (14,) * 3 + (7,) * 7,
    ("mobilenet", 32): (32,) * 4 + (16,) * 3 + (8,) * 7,
}


def test_unknown_base_model_is_refused():
    with pytest.raises(
        ValueError, match=r"^base_model: 'lenet' given, one of \['lenet5'"
    ):
        make_base_model("lenet")


def test_default_codes_of_deep_networks_are_cheap_ones():
    assert [name for name in BASE_MODELS if is_deep(name)] == [
        "vgg16",
        "resnet18",
        "resnet50",
        "mobilenet",
        "mobilenet_v2",
    ]
    assert not is_deep("own")  # a network of the user's


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("image_shape", [(28, 28, 1), (32, 32, 3)])
@pytest.mark.parametrize("width", [1.0, 1 / 8])
def test_shapes_of_every_block(name, image_shape, width):
    base = make_base_model(name, width)
    variables = abstract_variables(name, image_shape, 7, width)
    x = jax.ShapeDtypeStruct((3, *image_shape), jnp.float32)
    shapes = []
    for block in base.blocks:
        x = jax.eval_shape(block, variables, x)
        shapes.append(x.shape)
    assert shapes == [
        (3, rows, rows, int(maps * width))
        for rows, maps in zip(ROWS[name, image_shape[0]], MAPS[name], strict=True)
    ]
    assert jax.eval_shape(base.head, variables, x).shape == (3, 7)


@pytest.mark.parametrize(
    "name, linear",
    {
        "vgg16": range(13),
        "resnet18": range(9),
        "mobilenet": range(14),
        "resnet50": range(17),
    }.items(),
)
def test_blocks_may_leave_their_relu_to_the_next(name, linear):
    size = 64 if name == "resnet50" else 28
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


@pytest.mark.parametrize("name", ["lenet5", "mlp"])
def test_networks_that_cannot_leave_their_relu_are_refused(name):
    with pytest.raises(ValueError, match=f"^preactivations: True .* base_model={name}"):
        make_base_model(name, preactivations=True)


def test_some_maps_are_always_left():
    narrow = abstract_variables("vgg16", (28, 28, 1), width=1e-3)
    assert narrow["head"]["params"]["logits"]["kernel"].shape == (1, 10)
    lenet = abstract_variables("lenet5", (28, 28, 1), width=0.5)["f_conv"]["params"]
    assert [lenet[f"Conv_{i}"]["bias"].shape for i in (0, 1)] == [(3,), (8,)]
