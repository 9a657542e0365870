"""Optimizers of base models and codes, the learning rates that they follow, and the
regime of a training, which has both."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import NamedTuple

import jax
import optax

MOMENTUM = 0.9
RISING = 0.15  # part of the steps in which the rate of `one_cycle` rises
FIRST = 25.0  # times that the highest rate of `one_cycle` is the first one

Rate = float | optax.Schedule


SCHEDULES: dict[str, Callable[[float, int], Rate]] = {
    "cosine": optax.cosine_decay_schedule,
    "one_cycle": lambda rate, steps: optax.cosine_onecycle_schedule(
        steps, rate, RISING, FIRST
    ),
    "constant": lambda rate, steps: rate,
}
"""`(highest rate, steps) -> rate`; `one_cycle` rises to the highest rate, and falls to
zero, along cosines (Smith and Topin 2018)."""


def adam(rate: Rate, weight_decay: float) -> optax.GradientTransformation:
    """Returns Adam with L2, whose decay is added to the gradient (section IV-A).

    Args:
      rate: the learning rate, constant or of every step.
      weight_decay: the L2 factor.
    """
    return optax.chain(optax.add_decayed_weights(weight_decay), optax.adam(rate))


def sgd(rate: Rate, weight_decay: float) -> optax.GradientTransformation:
    """Returns gradient descent with Nesterov's momentum and L2; arguments as `adam`."""
    descent = optax.sgd(rate, MOMENTUM, nesterov=True)
    return optax.chain(optax.add_decayed_weights(weight_decay), descent)


def adamw(rate: Rate, weight_decay: float) -> optax.GradientTransformation:
    """Returns Adam with a decay of the parameters themselves (Loshchilov and Hutter
    2019), which the rate scales; arguments as `adam`."""
    return optax.adamw(rate, weight_decay=weight_decay)


OPTIMIZERS: dict[str, Callable[[Rate, float], optax.GradientTransformation]] = {
    "adam": adam,
    "sgd": sgd,
    "adamw": adamw,
}
"""`(learning rate, L2 factor) -> optimizer`."""


class Regime(NamedTuple):
    """The optimisation of one training.

    Attributes:
      epochs: may be a fraction; the last epoch is then cut short.
      batch_size: B, examples per step, at most N.
      learning_rate: the highest one.
      schedule: how it changes, one of `SCHEDULES`.
      weight_decay: L2 factor.
      products: what is multiplied, one of `config.PRODUCTS`.
      optimizer_name: one of `OPTIMIZERS`.
    """

    epochs: float
    batch_size: int
    learning_rate: float = 1e-3
    schedule: str = "constant"
    weight_decay: float = 0.0
    products: str = "default"
    optimizer_name: str = "adam"

    def steps(self, examples: int) -> int:
        """Returns the steps with so many training examples; every epoch is without its
        last incomplete batch."""
        return max(1, round(self.epochs * (examples // self.batch_size)))

    def rate(self, examples: int) -> Rate:
        """Returns the learning rate, constant or of every step."""
        return SCHEDULES[self.schedule](self.learning_rate, self.steps(examples))

    def optimizer(self, examples: int) -> optax.GradientTransformation:
        """Returns the optimizer for so many training examples."""
        make = OPTIMIZERS[self.optimizer_name]
        return make(self.rate(examples), self.weight_decay)

    def precision(self) -> AbstractContextManager:
        """Returns the context of training steps, for their products."""
        if self.products == "default":
            return contextlib.nullcontext()  # what is set outside stays so
        return jax.default_matmul_precision(self.products)
