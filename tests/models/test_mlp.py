"""ParM's MLP: its size, and that it serves groups of images and no pieces."""

import jax
import jax.numpy as jnp
import pytest

from coded_jax.codes.erasures import available
from coded_jax.inference.pipeline import infer
from coded_jax.models import make_base_model
from coded_jax.runs.build import build_pipeline
from coded_jax.runs.config import Config
from tests.codes.rival_examples import images_of

SHAPE = (28, 28, 1)


def pipeline(**settings):
    own = {"dataset": "mnist", "base_model": "mlp", "recipe": "paper"}
    return build_pipeline(Config(**own, **settings), SHAPE, 10, (0.1,), (0.3,))


def test_it_has_the_published_number_of_weights():
    base = make_base_model("mlp")
    init = jax.jit(base.init, static_argnums=(1, 2))
    shapes = jax.eval_shape(lambda key: init(key, SHAPE, 10), jax.random.key(0))
    assert sum(x.size for x in jax.tree.leaves(shapes)) == 178_110


def test_groups_of_images_are_classified_by_it():
    pipe = pipeline(split="group", code="replication", k=2, r=2)
    base = make_base_model("mlp")
    variables = jax.jit(base.init, static_argnums=(1, 2))(jax.random.key(0), SHAPE, 10)
    images = images_of(6)
    groups = images.reshape(3, 56, 28, 1)
    logits = infer(pipe, variables, ({},), groups, available((0,), 4))
    scaled = (jnp.asarray(images, "f") / 255 - 0.1) / 0.3
    expected = base.head(variables, base.f_conv(variables, scaled))
    assert jnp.allclose(logits.reshape(6, 10), expected, atol=1e-4)


def test_pieces_of_an_image_are_refused():
    with pytest.raises(ValueError):
        pipeline(code="replication", k=2, r=2)
