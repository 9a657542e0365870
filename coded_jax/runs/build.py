"""Pipelines: of a configuration, of its rivals, and of a CNN of the user's own."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from coded_jax import checks, codes
from coded_jax.checks import require
from coded_jax.codes import (
    AnyCode,
    CodeConfig,
    ConvolutionSplit,
    GroupSplit,
    ImageSplit,
    ViewSplit,
)
from coded_jax.data import groups
from coded_jax.data.user_data import require_statistics
from coded_jax.inference.pipeline import Coding, Examples, Pipeline
from coded_jax.inference.stages import CodedStage, Segment, whole_stage
from coded_jax.inference.tails import copy_tail
from coded_jax.models import make_base_model
from coded_jax.runs.config import OWN, BaseConfig, Config
from coded_jax.splitting import SplitPlan, ViewPlan, views
from coded_jax.splitting.convolutions import separate_convolutions
from coded_jax.splitting.plan import make_plan
from coded_jax.splitting.pooling import cut_at_pooling
from coded_jax.types import BaseModel, Block, CodeShape, PyTree, View, apart, chain


def build_pipeline(
    config: Config,
    examples: Examples,
    classes: int,
    mesh: Mesh | None = None,
    base: BaseModel | None = None,
) -> Pipeline:
    """Builds the coded inference that `config` describes, on the devices of `mesh`.

    Args:
      config: the settings.
      examples: images and the kind of answers; the settings say if they are grouped.
      classes: of the data set.
      mesh: see `make_mesh`.
      base: in place of the base model that `config` names.

    Raises:
      ValueError: the base model has no such blocks, a stage cannot be split into that
        many pieces, or the code of single convolutions would have to be trained.
    """
    base = base or make_base_model(config.base_model, config.base_width)
    shape = examples.shape
    variables = variable_shapes(base, shape, classes)
    grouped = isinstance(config.splitting, GroupSplit)
    if grouped:
        base = groups.group_base(base, shape[0])
        plan = groups.group_plan(shape, config.k, classes)
        blocks, plans = base.blocks, {(1, 1): plan}
    elif isinstance(config.splitting, ViewSplit):
        base, plan = _plan_views(config.splitting, base, variables, examples)
        blocks, plans = base.blocks, {(1, len(base.blocks)): plan}
    else:
        blocks, plans = _plan_stages(config, base, variables, shape)
    stages, done = [], 0
    for (first, last), plan in plans.items():
        code_shape = CodeShape.of(plan, config.r)
        code = codes.make_code(config.code, code_shape, variables, config)
        coded = segment(blocks, first, last)
        before = segment(blocks, done + 1, first - 1)
        stages.append(CodedStage(coded.f_conv, (first, last), plan, code, before))
        done = last
    pipeline = Pipeline(
        base,
        tuple(stages),
        after=segment(blocks, done + 1, len(blocks)),
        coding=Coding(
            config.k, config.r, config.recipe, config.parity_moves, config.precision
        ),
        examples=examples._replace(grouped=grouped),
        mesh=mesh,
    )
    uncut = any(stage.code.traits.uncut for stage in stages)
    fits = config.returned == "shares" or uncut or config.code != codes.LEARNED
    require("returned", config.returned, fits, "shares, since no output is larger,")
    fits = not (config.parity_moves and _has_parity_workers(pipeline))
    accepted = "False with parity workers that have networks of their own"
    require("parity_moves", config.parity_moves, fits, accepted)
    return _with_tail(config, config.code, pipeline, variables)


def rival_pipelines(
    config: Config, pipeline: Pipeline, variables: PyTree
) -> dict[str, Pipeline]:
    """Returns `pipeline` with each baseline in the place of its code, by name.

    The variables are those of the base model, arrays or their shapes.

    Raises:
      ValueError: a baseline cannot be built with these settings.
    """
    rivals = {}
    for code in config.baselines:
        if code == config.code:
            continue
        make = lambda s, _, code=code: codes.make_code(code, s, variables, config)
        rival = pipeline.with_codes(make)
        moves = config.parity_moves and not _has_parity_workers(rival)
        rival = rival._replace(coding=rival.coding._replace(parity_moves=moves))
        rivals[codes.name_of(code)] = _with_tail(config, code, rival, variables)
    return rivals


def uncoded_pipeline(
    config: Config,
    examples: Examples,
    mesh: Mesh | None = None,
    base: BaseModel | None = None,
) -> Pipeline:
    """Builds the inference of the base model alone, see `build_pipeline`."""
    base = base or make_base_model(config.base_model, config.base_width)
    return Pipeline(
        base,
        stages=(),
        after=segment(base.blocks, 1, len(base.blocks)),
        coding=Coding(config.k, config.r, dtype=config.precision),
        examples=examples._replace(grouped=False),
        mesh=mesh,
    )


def variable_shapes(
    base: BaseModel, image_shape: tuple[int, int, int], classes: int
) -> PyTree:
    """Returns shapes and dtypes of the variables of a base model for such images.

    Raises:
      ValueError: it takes no images of that shape.
    """
    key = jax.eval_shape(jax.random.key, 0)
    return jax.eval_shape(lambda k: base.init(k, image_shape, classes), key)


def segment(blocks: tuple[Block, ...], first: int, last: int) -> Segment:
    """Returns the blocks `first` to `last`, counted from 1, as one; perhaps none."""
    if first > last:
        return Segment()
    return Segment(chain(blocks[first - 1 : last]), (first, last))


def _plan_stages(
    config: Config, base: BaseModel, variables: PyTree, image_shape: tuple[int, ...]
) -> tuple[tuple[Block, ...], dict[tuple[int, int], SplitPlan]]:
    """Plans the split of every coded stage, or of each of its convolutions.

    Returns:
      Blocks that compute the same as the base model's, in which convolutions to be
      coded are blocks of their own; and each plan by the first and last of its blocks.
    """
    splitting, total = config.splitting, len(base.blocks)
    coded = config.stages or ((1, total),)
    last = coded[-1][1]
    require("stages", last, last <= total, f"blocks in 1..{total}")
    blocks: list[Block] = []
    plans: dict[tuple[int, int], SplitPlan] = {}
    x, done = jax.ShapeDtypeStruct((1, *image_shape), "float32"), 0
    for i, (first, last) in enumerate(coded):
        f_conv = segment(base.blocks, first, last).f_conv
        x = jax.eval_shape(
            segment(base.blocks, done + 1, first - 1).f_conv, variables, x
        )
        shape = apart(x)[0].shape[1:]
        blocks.extend(base.blocks[done : first - 1])
        try:
            if isinstance(splitting, ConvolutionSplit):
                parts, of_rounds = separate_convolutions(
                    f_conv, variables, shape, splitting.k, splitting.least_spared
                )
                for j, plan in enumerate(of_rounds, 1):
                    number = len(blocks) + 2 * j  # between blocks of the client
                    plans[number, number] = plan
                blocks.extend(parts)
            elif isinstance(splitting, ImageSplit):
                plans[first, last] = make_plan(
                    f_conv, variables, shape, splitting.grid_of(i), splitting.halo
                )
                blocks.extend(base.blocks[first - 1 : last])
        except ValueError as error:
            if total == 1:
                raise
            raise ValueError(
                f"{error} (blocks {first}-{last} of 1-{total}; "
                "--stages says which are coded together)"
            ) from error
        x, done = jax.eval_shape(f_conv, variables, x), last
    return (*blocks, *base.blocks[done:]), plans


def _views_of(
    splitting: ViewSplit, shape: tuple[int, int, int]
) -> tuple[list[View], list[View], tuple[int, int]]:
    """Returns the data views and the parity views of images, and the size of each."""
    if splitting.views is None:
        crops = views.grid_views(shape, splitting.crops, splitting.halo)
    else:
        crops = [views.view_of(text, shape, (1, 1)) for text in splitting.views]
    least = min(view.height for view in crops), min(view.width for view in crops)
    size = splitting.view_size or least
    if splitting.views is not None:
        crops = [views.view_of(text, shape, size) for text in splitting.views]
    return crops, [views.view_of(text, shape, size) for text in splitting.parity], size


def _plan_views(
    splitting: ViewSplit, base: BaseModel, variables: PyTree, examples: Examples
) -> tuple[BaseModel, ViewPlan]:
    """Plans the views of images.

    Returns:
      The base model, whose last block is the pooling that its head began with, if it
      began with one; and the plan.
    """
    shape = examples.shape
    crops, parity, size = _views_of(splitting, shape)
    plan = views.plan_views(base.f_conv, variables, shape, crops, parity, size)
    if plan.output_shape != plan.features_shape:
        shapes = plan.features_shape, plan.output_shape
        halves = cut_at_pooling(base.head, variables, *shapes)
        if halves is not None:
            pool, head = halves
            blocks = (*base.blocks, pool)
            base = base._replace(blocks=blocks, head=head, hidden=None)
            plan = views.plan_views(base.f_conv, variables, shape, crops, parity, size)
    mean, std = examples.mean, examples.std
    return base, dataclasses.replace(plan, mean=mean, std=std)


def cut_model(
    model: Callable[[PyTree, jax.Array], jax.Array],
    variables: PyTree,
    image_shape: tuple[int, int, int],
    splitting: ViewSplit,
) -> tuple[Block, Callable[[PyTree, jax.Array], jax.Array]]:
    """Cuts a whole network behind its pooling, for views: in what runs on each of them,
    and the head.

    Args:
      model: `(variables, images [B, H, W, C]) -> logits`.
      variables: arrays or shapes (`jax.ShapeDtypeStruct`).
      image_shape: `(H, W, C)`.
      splitting: the views.

    Raises:
      ValueError: the network does not pool all positions, or fails for images of the
        size of a view.
    """
    *_, size = _views_of(splitting, image_shape)
    halves = cut_at_pooling(model, variables, image_shape, (*size, image_shape[-1]))
    if halves is None:
        raise ValueError(
            f"model: one that does not pool all positions, or fails for images of "
            f"{size[0]}x{size[1]}, given; blocks and head, or larger views, accepted"
        )
    return halves


def _has_parity_workers(pipeline: Pipeline) -> bool:
    return any(stage.code.traits.parity_worker for stage in pipeline.stages)


def _with_tail(
    config: Config, code: AnyCode, pipeline: Pipeline, variables: PyTree
) -> Pipeline:
    """Adds the copy of the tail that the settings ask for, and checks that a code of
    single convolutions has nothing to learn."""
    separated = isinstance(config.splitting, ConvolutionSplit)
    accepted = "one that is not trained, as mds, with split=convolution"
    fits = not (separated and pipeline.learns)
    require("code", codes.name_of(code), fits, accepted)
    # A copy learns from reconstructions. There are none of codes that change what has
    # arrived, copy pieces, wait for all data results, or are means of the shares.
    has_copy = config.tail != "frozen" and all(
        stage.code.systematic
        and stage.code.traits.answers_always
        and stage.code.quorum.name != "one_of_each"
        and not stage.code.traits.constants
        for stage in pipeline.stages
    )
    if not has_copy:
        return pipeline._replace(tail_copy=None)
    x = jax.ShapeDtypeStruct((1, *pipeline.examples.shape), pipeline.dtype)
    for stage in pipeline.stages:
        x = jax.eval_shape(functools.partial(whole_stage, stage), variables, x)
    return pipeline._replace(tail_copy=copy_tail(pipeline.run_tail, variables, x))


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
    sizes = checks.require_sizes("image_shape", image_shape, "H", "W", "C")
    if mean is not None or std is not None:
        mean, std = require_statistics(mean, std, sizes[-1])
    base, _ = own_base(blocks, head, variables, sizes, classes)
    height, width, channels = sizes
    examples = Examples((height, width, channels), mean, std, values=bool(values))
    pipeline = build_pipeline(config, examples, classes, mesh, base)
    has_tail = config.tail == "frozen" or pipeline.tail_copy is not None
    accepted = (
        "frozen for a code that changes what has arrived, waits or is not trained,"
    )
    require("tail", config.tail, has_tail, accepted)
    return pipeline


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
    image_shape: tuple[int, ...],
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
      ValueError: a function fails for such images, or `head` does not give logits.
    """
    functions = tuple(blocks) if isinstance(blocks, Sequence) else (blocks,)
    arrays = as_arrays(variables)
    base = BaseModel(lambda key, image_shape, classes: arrays, functions, head)

    def output(name: str, f: Block, x: Any) -> Any:
        try:
            return jax.eval_shape(f, arrays, x)
        except Exception as error:  # a function of the user's raises anything
            raise ValueError(
                f"{name}: fails for float32 {list(x.shape)} "
                f"({checks.first_line(error)})"
            ) from error

    images = jax.ShapeDtypeStruct((2, *image_shape), jnp.float32)
    features = output("blocks", base.f_conv, images)
    logits = output(last, base.head, features)
    *places, count = logits.shape[1:] or (0,)
    fits = len(places) in (0, 2) if positions is None else tuple(places) == positions
    fits = fits and logits.shape[:1] == (2,) and count == classes
    sizes = [2, *(positions or ()), classes]
    accepted = f"{sizes} of 2 images, logits of the classes or channels of the values,"
    require(last, list(logits.shape), fits, accepted)
    return base, arrays


def as_arrays(variables: PyTree) -> PyTree:
    """Returns arrays in the place of arrays and numbers, real ones in float32."""

    def as_array(leaf: Any) -> jax.Array:
        x = jnp.asarray(leaf)
        return x.astype(jnp.float32) if jnp.issubdtype(x.dtype, jnp.floating) else x

    return jax.tree.map(as_array, variables)
