"""Small networks whose answers are images, with data: classes, and values."""

import jax.numpy as jnp
import numpy as np

import coded_jax
from coded_jax.types import Dataset, Split
from tests.own_cnn import conv

CLASSES, CHANNELS = 3, 2
SHAPE = (16, 12, 1)


def segmented():
    """Images whose pixels are classified by how light they are."""
    rng = np.random.default_rng(0)

    def part(size):
        images = rng.integers(0, 256, (size, *SHAPE), np.uint8)
        labels = (images[..., 0] // 86).astype(np.int32)
        labels[:, 0, 0] = -1  # does not count
        return Split(images, labels)

    return Dataset("own", CLASSES, part(64), part(20), part(30), (0.5,), (0.3,))


def segment(variables, x):
    """A network that goes down to half of the positions, and up again."""
    y = jnp.tanh(conv(variables["kernel"], x))
    down = jnp.tanh(conv(variables["down"], y, 2))
    up = jnp.repeat(jnp.repeat(down, 2, 1), 2, 2)
    return conv(variables["logits"], jnp.concatenate([y, up], -1))


def variables_of_segment():
    rng = np.random.default_rng(1)
    draw = lambda *shape: rng.normal(size=shape, scale=0.5).astype("f")
    return {
        "kernel": draw(3, 3, 1, 4),
        "down": draw(3, 3, 4, 4),
        "logits": draw(1, 1, 8, CLASSES),
    }


def noisy():
    """Noisy images, and as values what they were and a blurred copy of it."""
    rng = np.random.default_rng(0)

    def part(size):
        clear = rng.uniform(size=(size, 4, 3, 1)).repeat(4, 1).repeat(4, 2)
        noise = rng.normal(scale=0.1, size=clear.shape)
        images = np.clip(255 * (clear + noise), 0, 255).astype(np.uint8)
        blurred = (clear + np.roll(clear, 1, 1)) / 2
        return Split(images, np.concatenate([clear, blurred], -1).astype("f"))

    return Dataset("own", CHANNELS, part(64), part(20), part(30), (0.5,), (0.3,))


def restore(variables, x):
    """A network that puts out values."""
    y = jnp.tanh(conv(variables["kernel"], x))
    return conv(variables["values"], y) + 0.5


def variables_of_restore():
    rng = np.random.default_rng(1)
    draw = lambda *shape: rng.normal(size=shape, scale=0.2).astype("f")
    return {"kernel": draw(3, 3, 1, 4), "values": draw(1, 1, 4, CHANNELS)}


def pipeline_of(model, variables, dataset, **settings):
    """Returns the pipeline of a network that is staged by itself, and its variables."""
    plan = coded_jax.plan_stages(model, variables, SHAPE, 2, 1)
    pipeline = coded_jax.make_pipeline(
        blocks=plan.base.blocks,
        head=plan.base.head,
        variables=plan.variables,
        image_shape=SHAPE,
        classes=dataset.classes,
        mean=dataset.mean,
        std=dataset.std,
        stages=plan.stages,
        **settings,
    )
    return pipeline, plan.variables
