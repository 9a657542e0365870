"""A CNN of the user's own: functions and their variables, checked; its pipeline."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from coded_jax.checks import (
    first_line,
    is_integer,
    require,
    require_sizes,
    require_type,
)
from coded_jax.codes import CodeConfig
from coded_jax.data.user_data import require_statistics
from coded_jax.inference.pipeline import Pipeline
from coded_jax.runs.build import build_pipeline
from coded_jax.runs.config import OWN, BaseConfig, Config
from coded_jax.types import BaseModel, Block, PyTree


def make_pipeline(
    *,
    blocks: Block | Sequence[Block],
    head: Callable[[PyTree, jax.Array], jax.Array],
    variables: PyTree,
    image_shape: tuple[int, int, int],
    classes: int,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    mesh: Mesh | None = None,
    values: bool = False,
    **settings: Any,
) -> Pipeline:
    """Splits a CNN and puts a code around it, for `train` or a training loop of yours.

    Args:
      blocks: the convolutional part, `(variables, images [B, H, W, C]) -> features
        [B, M*, M'*, D]`; or several such functions, see `protect`.
      head: `(variables, features [B, M*, M'*, D]) -> logits [B, classes]`, or
        `[B, H', W', classes]` where answers are images.
      variables: any pytree of arrays and numbers; here only shapes and dtypes matter.
      image_shape: `(H, W, C)`.
      classes: how many logits the head gives.
      mean, std: `[C]`, of `images / 255`, for images that come as uint8; None where
        they come as the blocks take them, in float32.
      mesh: of several devices, see `meshes.make_mesh`; None for the default one.
      values: whether the head gives values and no logits, see `types.Dataset`.
      settings: fields of `CodeConfig`: `k`, `r`, `grid`, `code` (a name, or a function
        `CodeShape -> Code`), `recipe` (`"systematic"` by default), `encoder_width`, ...

    Raises:
      ValueError: a setting is unknown or out of range, mean and deviation are not
        those of `images / 255`, the blocks cannot be split, or `head` does not give
        logits.
    """
    config = own_config(settings, CodeConfig)
    require("mean, std", (mean, std), (mean is None) == (std is None), "both or none")
    height, width, channels = require_sizes(
        "image_shape", image_shape, "H", "W", "C", least=1
    )
    shape = (height, width, channels)
    whole = is_integer(classes) and classes >= 1
    require("classes", classes, whole, "a whole number of 1 or more")
    require_type("mesh", mesh, Mesh | None, "a Mesh, as of make_mesh, or None")
    if mean is not None and std is not None:
        mean, std = require_statistics(mean, std, channels)
    base, _ = own_base(blocks, head, variables, shape, int(classes))
    pipeline = build_pipeline(
        config, shape, int(classes), mean=mean, std=std, mesh=mesh, base=base
    )
    has_tail = config.tail == "frozen" or pipeline.tail_copy is not None
    accepted = (
        "frozen for a code that changes what has arrived, waits or is not trained,"
    )
    require("tail", config.tail, has_tail, accepted)
    return pipeline.with_values(bool(values))


def own_config(settings: dict[str, Any], accepted: type) -> Config:
    """Returns the settings of a run on a CNN of the user's own; systematic by default.

    Args:
      settings: by name.
      accepted: the record of which they may be fields, `CodeConfig` or `Config`; but
        not those of `BaseConfig`, since the CNN is trained already.

    Raises:
      ValueError: a setting is unknown or out of range.
    """
    fixed: dict[str, Any] = {"dataset": OWN, "base_model": OWN}
    names = {field.name for field in dataclasses.fields(accepted)}
    names -= {field.name for field in dataclasses.fields(BaseConfig)}
    unknown = sorted(settings.keys() - names)
    require("settings", unknown, not unknown, f"some of {sorted(names)}")
    if accepted is CodeConfig and settings.get("tail", "frozen") != "frozen":
        fixed["supervision"] = 1.0  # in place of what `train` is given and checks
    return Config(**{"recipe": "systematic", **settings, **fixed})


def own_base(
    blocks: Block | Sequence[Block],
    head: Callable[[PyTree, jax.Array], jax.Array],
    variables: PyTree,
    image_shape: tuple[int, int, int],
    classes: int,
    positions: tuple[int, ...] | None = None,
    last: str = "head",
) -> tuple[BaseModel, PyTree]:
    """Returns a base model made of functions, and its variables as arrays.

    Args:
      blocks: one function or several, see `BaseModel.blocks`.
      head: see `BaseModel.head`.
      variables: a pytree of arrays and numbers; real ones become float32.
      image_shape: `(H, W, C)`.
      classes: how many logits the head must give.
      positions: at which it gives so many, `(H', W')` or `()`; either if None.
      last: the argument whose logits these are, for errors.

    Raises:
      ValueError: the variables are no arrays, a function fails for such images or
        leaves no features of them, or `head` does not give logits.
    """
    functions = tuple(blocks) if isinstance(blocks, Sequence) else (blocks,)
    fits = len(functions) > 0 and all(map(callable, functions))
    require("blocks", blocks, fits, "a function, or one or more in a list,")
    arrays = as_arrays(variables)
    base = BaseModel(lambda key, image_shape, classes: arrays, functions, head)
    images = jax.ShapeDtypeStruct((2, *image_shape), jnp.float32)

    def output(name: str, f: Block, x: Any) -> Any:
        try:
            return jax.eval_shape(f, arrays, x)
        except Exception as error:  # a function of the user's raises anything
            raise ValueError(
                f"{name}: fails for float32 {list(x.shape)} ({first_line(error)})"
            ) from error

    features = output("blocks", base.f_conv, images)
    enough = all(array.size for array in jax.tree.leaves(features))
    require("image_shape", tuple(image_shape), enough, "one that leaves features")
    logits = output(last, base.head, features)
    *places, count = logits.shape[1:] or (0,)
    fits = len(places) in (0, 2) if positions is None else tuple(places) == positions
    if logits.shape[:1] != (2,) or count != classes or not fits:
        expected = [2, *(positions or ()), classes]
        raise ValueError(
            f"{last}: gives {list(logits.shape)} for 2 images, {expected} accepted, "
            "the logits of the data set's classes, or the channels of its values"
        )
    return base, arrays


def as_arrays(variables: PyTree) -> PyTree:
    """Returns arrays in the place of arrays and numbers, real ones in float32.

    Raises:
      ValueError: a leaf is neither.
    """

    try:
        arrays = jax.tree.map(jnp.asarray, variables)
    except TypeError as error:
        raise ValueError(
            f"variables: a pytree of arrays and numbers accepted ({first_line(error)})"
        ) from error
    real = lambda x: jnp.issubdtype(x.dtype, jnp.floating)
    return jax.tree.map(lambda x: x.astype(jnp.float32) if real(x) else x, arrays)
