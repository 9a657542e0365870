"""Keras models on JAX as functions of their variables; it needs the `keras` extra."""

from __future__ import annotations

import os
from typing import Any

import jax

from coded_jax.checks import require
from coded_jax.types import Block, PyTree


def from_keras(model: Any) -> tuple[Block, PyTree]:
    """Returns a Keras model as a function, and its variables.

    Args:
      model: a `keras.Model` of one input and one output; Keras must run on JAX.

    Returns:
      `(variables, images [B, H, W, C]) -> output`, in inference mode, and a dict of
      lists of arrays.

    Raises:
      ValueError: Keras does not run on JAX.
      ImportError: it is missing.
    """
    _import_keras()
    variables = {
        "trainable": [v.value for v in model.trainable_variables],
        "non_trainable": [v.value for v in model.non_trainable_variables],
    }

    def call(variables: PyTree, images: jax.Array) -> jax.Array:
        trainable, others = variables["trainable"], variables["non_trainable"]
        return model.stateless_call(trainable, others, images, training=False)[0]

    return call, variables


def keras_application(
    name: str, image_shape: tuple[int, int, int]
) -> tuple[Block, PyTree]:
    """Returns a network of `keras.applications`, and the shapes of its variables.

    Args:
      name: as `MobileNetV2`.
      image_shape: `(H, W, C)`.

    Raises:
      ValueError: there is no such network, it takes no such images, or Keras does not
        run on JAX.
      ImportError: Keras is missing.
    """
    keras = _import_keras()
    make: Any = getattr(keras.applications, name, None)
    known = [x for x in dir(keras.applications) if x[0].isupper()]
    require("model", f"keras:{name}", callable(make), f"one of {known}")

    class Undrawn(keras.initializers.Initializer):
        """Draws nothing, which would cost a compilation for each shape."""

        def __init__(self, **config: Any) -> None:
            pass

        def __call__(self, shape: Any, dtype: Any = None) -> Any:
            return keras.ops.zeros(shape, dtype)

    # Under the names of the networks' own.
    own = dict.fromkeys(("glorot_uniform", "VarianceScaling"), Undrawn)
    with keras.utils.custom_object_scope(own):
        model = make(weights=None, input_shape=tuple(image_shape))
    function, variables = from_keras(model)
    return function, jax.eval_shape(lambda: variables)


def _import_keras() -> Any:
    os.environ.setdefault("KERAS_BACKEND", "jax")
    try:
        import keras
    except ImportError as error:
        raise ImportError(
            "keras: not installed, needed for Keras models: pip install "
            "'coded_jax[keras]'"
        ) from error
    backend = keras.backend.backend()
    require("KERAS_BACKEND", backend, backend == "jax", "jax")
    return keras
