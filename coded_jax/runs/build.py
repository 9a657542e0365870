"""Pipelines of a configuration: the coded inference, its rivals, the base model."""

from __future__ import annotations

import functools

import jax
from jax.sharding import Mesh

from coded_jax import codes
from coded_jax.checks import require
from coded_jax.data import groups
from coded_jax.inference.pipeline import Coding, Examples, Pipeline
from coded_jax.inference.stages import CodedStage, Segment, whole_stage
from coded_jax.inference.tails import copy_tail
from coded_jax.models import make_base_model
from coded_jax.runs.config import Config
from coded_jax.splitting import SplitPlan
from coded_jax.splitting.convolutions import separate_convolutions
from coded_jax.splitting.plan import make_plan
from coded_jax.types import BaseModel, Block, CodeShape, PyTree, apart, chain


def build_pipeline(
    config: Config,
    image_shape: tuple[int, int, int],
    classes: int,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    mesh: Mesh | None = None,
    base: BaseModel | None = None,
) -> Pipeline:
    """Builds the coded inference that `config` describes, on the devices of `mesh`.

    Args:
      config: the settings.
      image_shape: `(H, W, C)` of an image.
      classes: of the data set.
      mean, std: `[C]`, see `Pipeline`.
      mesh: see `make_mesh`.
      base: in place of the base model that `config` names.

    Raises:
      ValueError: the base model has no such blocks, a stage cannot be split into that
        many pieces, or the code of single convolutions would have to be trained.
    """
    base = base or make_base_model(config.base_model, config.base_width)
    variables = variable_shapes(base, image_shape, classes)
    if isinstance(config.splitting, codes.GroupSplit):
        base = groups.group_base(base, image_shape[0])
        blocks = base.blocks
        plans = {(1, 1): groups.group_plan(image_shape, config.k, classes)}
    else:
        blocks, plans = _plan_stages(config, base, variables, image_shape)
    stages, done = [], 0
    for (first, last), plan in plans.items():
        shape = CodeShape.of(plan, config.r)
        code = codes.make_code(config.code, shape, variables, config)
        coded = segment(blocks, first, last)
        before = segment(blocks, done + 1, first - 1)
        stages.append(CodedStage(coded.f_conv, (first, last), plan, code, before))
        done = last
    after = segment(blocks, done + 1, len(blocks))
    grouped = isinstance(config.splitting, codes.GroupSplit)
    pipeline = Pipeline(
        base,
        tuple(stages),
        after,
        Coding(
            config.k, config.r, config.recipe, config.parity_moves, config.precision
        ),
        Examples(image_shape, mean, std, grouped),
        mesh,
    )
    fits = config.returned == "shares" or any(
        stage.code.traits.uncut for stage in stages
    )
    fits = fits or config.code != codes.LEARNED
    require("returned", config.returned, fits, "shares, since no output is larger,")
    own = any(stage.code.traits.parity_worker for stage in stages)
    fits = not (config.parity_moves and own)
    accepted = "False with parity workers that have networks of their own"
    require("parity_moves", config.parity_moves, fits, accepted)
    _require_untrained(config, config.code, pipeline)
    return _with_tail(config, pipeline, variables)


def _with_tail(config: Config, pipeline: Pipeline, variables: PyTree) -> Pipeline:
    """Adds the copy of the tail that the settings ask for.

    Codes that change what has arrived have none, nor have copies of pieces, codes that
    wait for all data results, and those whose parameters are means of the shares.
    """
    fits = lambda code: (
        code.systematic
        and code.traits.answers_always
        and code.quorum.name != "one_of_each"
        and not code.traits.constants
    )
    has_copy = all(fits(stage.code) for stage in pipeline.stages)
    if config.tail == "frozen" or not has_copy:
        return pipeline._replace(tail_copy=None)
    x = jax.ShapeDtypeStruct((1, *pipeline.examples.shape), pipeline.dtype)
    for stage in pipeline.stages:
        x = jax.eval_shape(functools.partial(whole_stage, stage), variables, x)
    return pipeline._replace(tail_copy=copy_tail(pipeline.tail, variables, x))


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
    if coded[-1][1] > total:
        raise ValueError(
            f"stages: block {coded[-1][1]} given, 1..{total} accepted, the blocks of "
            f"{config.base_model}"
        )
    separated = isinstance(splitting, codes.ConvolutionSplit)
    blocks: list[Block] = []
    plans: dict[tuple[int, int], SplitPlan] = {}
    x = jax.ShapeDtypeStruct((1, *image_shape), "float32")
    done = 0
    for i, (first, last) in enumerate(coded):
        f_conv = segment(base.blocks, first, last).f_conv
        before = segment(base.blocks, done + 1, first - 1).f_conv
        x = jax.eval_shape(before, variables, x)
        shape = apart(x)[0].shape[1:]
        blocks += base.blocks[done : first - 1]
        try:
            if isinstance(splitting, codes.ConvolutionSplit):
                parts, of_rounds = separate_convolutions(
                    f_conv, variables, shape, splitting.k, splitting.least_spared
                )
                for j, plan in enumerate(of_rounds, 1):
                    number = len(blocks) + 2 * j  # between blocks of the client
                    plans[number, number] = plan
                blocks += parts
            elif isinstance(splitting, codes.ImageSplit):
                plans[first, last] = make_plan(
                    f_conv, variables, shape, splitting.grid_of(i), splitting.halo
                )
                blocks += base.blocks[first - 1 : last]
        except ValueError as error:
            if total == 1 or (separated and config.stages is None):
                raise
            raise ValueError(
                f"{error} (blocks {first}-{last} of 1-{total}; "
                "--stages says which are coded together)"
            ) from error
        x, done = jax.eval_shape(f_conv, variables, x), last
    return (*blocks, *base.blocks[done:]), plans


def _require_untrained(config: Config, code: codes.AnyCode, pipeline: Pipeline) -> None:
    """Checks that a code of single convolutions has nothing to learn."""
    separated = isinstance(config.splitting, codes.ConvolutionSplit)
    fits = not (separated and pipeline.learns)
    accepted = "one that is not trained, as mds, with split=convolution"
    require("code", codes.name_of(code), fits, accepted)


def variable_shapes(
    base: BaseModel, image_shape: tuple[int, int, int], classes: int
) -> PyTree:
    """Returns shapes and dtypes of the variables of a base model for such images.

    Raises:
      ValueError: it takes no images of that shape.
    """
    key = jax.ShapeDtypeStruct((), jax.random.key(0).dtype)
    return jax.eval_shape(lambda k: base.init(k, image_shape, classes), key)


def segment(blocks: tuple[Block, ...], first: int, last: int) -> Segment:
    """Returns the blocks `first` to `last`, counted from 1, as one; perhaps none."""
    if first > last:
        return Segment()
    return Segment(chain(blocks[first - 1 : last]), (first, last))


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
        make = functools.partial(codes.make_code, code)
        rival = pipeline.with_codes(lambda s, _, make=make: make(s, variables, config))
        _require_untrained(config, code, rival)
        own = any(stage.code.traits.parity_worker for stage in rival.stages)
        coding = rival.coding._replace(parity_moves=config.parity_moves and not own)
        rival = rival._replace(coding=coding)
        rivals[codes.name_of(code)] = _with_tail(config, rival, variables)
    return rivals


def uncoded_pipeline(
    config: Config,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    mesh: Mesh | None = None,
    base: BaseModel | None = None,
) -> Pipeline:
    """Builds the inference of the base model alone, see `build_pipeline`."""
    base = base or make_base_model(config.base_model, config.base_width)
    whole = segment(base.blocks, 1, len(base.blocks))
    return Pipeline(
        base,
        (),
        whole,
        Coding(config.k, config.r, dtype=config.precision),
        Examples(mean=mean, std=std),
        mesh,
    )
