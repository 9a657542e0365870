"""From a configuration to the functions that it describes."""

from __future__ import annotations

import jax
import optax
from jax.sharding import Mesh

from coded_jax import codes, splitting, tasks
from coded_jax.config import Config
from coded_jax.models import make_base_model
from coded_jax.pipeline import Pipeline
from coded_jax.training import total_steps
from coded_jax.types import CodeShape

PHASES = ("base", "code", "no_parity")
"""What is trained, in this order; the names of the folders under `checkpoints/`."""


def build_pipeline(
    config: Config,
    image_shape: tuple[int, int, int],
    classes: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    mesh: Mesh | None = None,
) -> Pipeline:
    """The coded inference that `config` describes, on the devices of `mesh`.

    Raises:
      ValueError: the base model cannot be split into that many pieces.
    """
    base = make_base_model(config.base_model)
    key = jax.ShapeDtypeStruct((), jax.random.key(0).dtype)
    variables = jax.eval_shape(lambda key: base.init(key, image_shape, classes), key)
    plan = splitting.make_plan(base.f_conv, variables, image_shape, config.pieces)
    code = codes.learned_code(
        CodeShape(config.k, config.r, plan.piece_shape, plan.share_shape),
        encoder=config.encoder,
        decoder=config.decoder,
        encoder_width=config.encoder_width,
        decoder_width=config.decoder_width,
        dilations=config.dilations,
        decoder_channels=config.decoder_channels,
        systematic=config.recipe == "systematic",
    )
    return Pipeline(base, plan, code, mean, std, config.r, mesh, config.precision)


def epochs_of(config: Config, phase: str) -> float:
    """How long one of `PHASES` is trained."""
    return config.base_epochs if phase == "base" else config.epochs


def make_optimizer(
    config: Config, phase: str, examples: int
) -> optax.GradientTransformation:
    """Adam with L2; cosine decay for the base model and the systematic recipe."""
    decays = phase == "base" or config.recipe == "systematic"
    steps = total_steps(examples, config.batch_size, epochs_of(config, phase))
    return tasks.adam(
        config.learning_rate, config.weight_decay, steps if decays else None
    )
