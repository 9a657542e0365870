"""Optimizers of base models and codes, and the learning rates that they follow."""

from __future__ import annotations

from collections.abc import Callable

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


OPTIMIZERS: dict[str, Callable[[Rate, float], optax.GradientTransformation]] = {
    "adam": adam,
    "sgd": sgd,
}
"""`(learning rate, L2 factor) -> optimizer`."""
