"""Predictions of single images."""

import jax.numpy as jnp

from coded_jax.evaluation import predictions


def test_no_class_without_finite_logits():
    logits = jnp.array([[0.0, 1.0], [jnp.nan, 1.0], [2.0, -jnp.inf]])
    assert predictions.classes_of(logits).tolist() == [1, -1, -1]
