"""The regime of each phase of a run: its epochs, batches and optimizer."""

from __future__ import annotations

from typing import NamedTuple

import optax

from coded_jax.runs.config import Config
from coded_jax.training.config import TrainConfig
from coded_jax.training.loop import total_steps
from coded_jax.training.optimizers import OPTIMIZERS, SCHEDULES, Rate

BASE, CODE = "base", "code"
"""The phases that train the base model and the code; others train baselines."""


class Regime(NamedTuple):
    """The optimisation of one phase.

    Attributes:
      epochs: may be a fraction.
      batch_size: examples per step.
      learning_rate: the highest one.
      schedule: how it changes, one of `optimizers.SCHEDULES`.
      weight_decay: L2 factor.
      products: what is multiplied, one of `training.config.PRODUCTS`.
      optimizer_name: one of `optimizers.OPTIMIZERS`.
    """

    epochs: float
    batch_size: int
    learning_rate: float
    schedule: str
    weight_decay: float
    products: str
    optimizer_name: str = "adam"

    def steps(self, examples: int) -> int:
        """Returns the number of steps of the phase with so many training examples."""
        return total_steps(examples, self.batch_size, self.epochs)

    def rate(self, examples: int) -> Rate:
        """Returns the learning rate, constant or of every step."""
        return SCHEDULES[self.schedule](self.learning_rate, self.steps(examples))

    def optimizer(self, examples: int) -> optax.GradientTransformation:
        """Returns the optimizer for so many training examples."""
        make = OPTIMIZERS[self.optimizer_name]
        return make(self.rate(examples), self.weight_decay)


def regime_of(config: Config, phase: str) -> Regime:
    """Returns the regime of a phase: of `BASE`, or of any code."""
    if phase == BASE:
        return Regime(
            epochs=config.base_epochs,
            batch_size=config.base_batch_size or config.batch_size,
            learning_rate=config.base_learning_rate or config.learning_rate,
            schedule=config.base_schedule,
            weight_decay=(
                config.weight_decay
                if config.base_weight_decay is None
                else config.base_weight_decay
            ),
            products=config.base_products,
            optimizer_name=config.base_optimizer,
        )
    return code_regime(config, config.recipe)


def code_regime(config: TrainConfig, recipe: str) -> Regime:
    """Returns the regime of a code, in a run or by `train`.

    The learning rate is as the recipe says, whatever the code: it falls along a cosine
    with the systematic one, and is constant with the paper's.

    Args:
      config: of the training.
      recipe: see `LearnedConfig`.
    """
    return Regime(
        epochs=config.epochs,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        schedule="cosine" if recipe == "systematic" else "constant",
        weight_decay=config.weight_decay,
        products=config.products,
    )
