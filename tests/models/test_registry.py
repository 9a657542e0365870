"""What is true of every base model: sizes, shapes of its blocks, what they compose."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from coded_jax.inference.pipeline import Examples
from coded_jax.models import BASE_MODELS, make_base_model
from coded_jax.models.registry import is_deep
from coded_jax.runs.build import build_pipeline
from coded_jax.runs.config import Config
from tests.errors import refused
from tests.models.published import abstract_variables

# Name and image -> classes, parameters, blocks, maps and rows of the last one's output.
# What the blocks are is in `test_published.py`.
NETWORKS = {
    # 25*1*6 + 6 and 25*6*16 + 16; 256*120 + 120, 120*84 + 84 and 84*10 + 10.
    ("lenet5", (28, 28, 1)): (10, 156 + 2_416 + 30_840 + 10_164 + 850, 4, (16, 4)),
    # 25*3*6 + 6 and as above; 400*120 + 120 and as above.
    ("lenet5", (32, 32, 3)): (10, 456 + 2_416 + 48_120 + 10_164 + 850, 4, (16, 5)),
    # The published 14,714,688 of the thirteen convolutions are their weights and 4,224
    # biases, which a batch norm with a scale and an offset of each map stands in for.
    ("vgg16", (32, 32, 3)): (10, 14_714_688 + 4_224 + 5_130, 13, (512, 1)),
    # As published for CIFAR-10 with this stem.
    ("resnet18", (32, 32, 3)): (10, 11_173_962, 9, (512, 4)),
    # Three times 54,272 and twice 118,272 in the published network, whose image has
    # three colours; and the head.
    ("mobilenet", (28, 28, 1)): (
        10,
        143_168 + 3 * 54_272 + 2 * 118_272 + 970 - 2 * 9 * 32,
        14,
        (96, 7),
    ),
    ("resnet50", (224, 224, 3)): (1000, 25_557_032, 17, (2048, 7)),
    ("mobilenet_v2", (224, 224, 3)): (1000, 3_504_872, 19, (1280, 7)),
}


def test_every_network_is_in_the_table():
    others = {"mlp", "unet"}  # below
    assert {name for name, _ in NETWORKS} | others == {*BASE_MODELS}
    deep = {"vgg16", "resnet18", "resnet50", "mobilenet", "mobilenet_v2"}
    assert {name for name in BASE_MODELS if is_deep(name)} == deep
    assert not is_deep("own")  # a network of the user's


def count(variables):
    """Counts the parameters of a network, without running statistics."""
    params = [block["params"] for block in variables.values() if "params" in block]
    return sum(x.size for x in jax.tree.leaves(params))


@pytest.mark.parametrize("name, image_shape", NETWORKS)
def test_networks_are_of_the_published_size(name, image_shape):
    """And the blocks compose them, narrow ones, too."""
    classes, parameters, blocks, (maps, rows) = NETWORKS[name, image_shape]
    assert count(abstract_variables(name, image_shape, classes)) == parameters
    width = 1 / 8 if is_deep(name) else 1.0
    base = make_base_model(name, width)
    variables = abstract_variables(name, image_shape, 7, width)
    images = x = jax.ShapeDtypeStruct((3, *image_shape), jnp.float32)
    for block in base.blocks:
        x = jax.eval_shape(block, variables, x)
    assert len(base.blocks) == blocks
    assert x.shape == (3, rows, rows, int(maps * width))
    assert jax.eval_shape(base.f_conv, variables, images) == x
    logits = jax.eval_shape(base.head, variables, x)
    assert (logits.shape, logits.dtype) == ((3, 7), jnp.float32)


def test_the_mlp_of_parm_serves_groups_of_images_and_no_pieces():
    assert count(abstract_variables("mlp", (28, 28, 1))) == 178_110
    config = Config(base_model="mlp", code="replication", k=2, r=2)
    grouped = dataclasses.replace(config, split="group")
    build_pipeline(grouped, Examples((28, 28, 1), (0.1,), (0.3,)), 10)
    with pytest.raises(ValueError):
        build_pipeline(config, Examples((28, 28, 1), (0.1,), (0.3,)), 10)


def test_the_unet_answers_at_each_position():
    base = make_base_model("unet")
    variables = abstract_variables("unet", (64, 64, 1), 11)
    image = jax.ShapeDtypeStruct((3, 64, 64, 1), jnp.float32)
    features = jax.eval_shape(base.f_conv, variables, image)
    assert features.shape == (3, 64, 64, 16)
    assert jax.eval_shape(base.head, variables, features).shape == (3, 64, 64, 11)
    # 3x3: 1-16, 16-32, 32-64, 64-32 and 32-16; 2x2 up: 64-32 and 32-16; 1x1: 16-11.
    convs = 9 * (16 + 16 * 32 + 32 * 64 + 64 * 32 + 32 * 16)
    ups, norms = 4 * (64 * 32 + 32 * 16) + 32 + 16, 2 * (2 * 16 + 2 * 32 + 64)
    assert count(variables) == convs + ups + norms + 16 * 11 + 11


@pytest.mark.parametrize(
    "argument, call",
    [
        ("base_model", lambda: make_base_model("lenet")),
        (
            "image_shape",  # no multiple of 4
            lambda: make_base_model("unet").init(jax.random.key(0), (30, 64, 1), 11),
        ),
    ],
)
def test_what_is_not_accepted_is_named(argument, call):
    with refused(argument):
        call()


def test_some_maps_are_always_left():
    narrow = abstract_variables("vgg16", (28, 28, 1), width=1e-3)
    assert narrow["head"]["params"]["logits"]["kernel"].shape == (1, 10)
    lenet = abstract_variables("lenet5", (28, 28, 1), width=0.5)["f_conv"]["params"]
    assert [lenet[f"Conv_{i}"]["bias"].shape for i in (0, 1)] == [(3,), (8,)]
