"""The two tasks of training: the base model, and then a code around it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from coded_jax.checks import require
from coded_jax.codes import erasures
from coded_jax.codes.erasures import Pattern
from coded_jax.data import groups
from coded_jax.data.augmentation import AUGMENTATIONS
from coded_jax.devices import placement
from coded_jax.evaluation import pattern_accuracy, predictions
from coded_jax.evaluation.predictions import TrainedPipeline, Uncoded
from coded_jax.inference.pipeline import Pipeline
from coded_jax.training.config import TrainConfig, require_patterns
from coded_jax.training.loop import BY_LOST, SCORE, Loss, Task
from coded_jax.training.losses import (
    base_losses,
    coded_losses,
    keep_statistics,
    parity_model_losses,
)
from coded_jax.training.ridge import with_ridge
from coded_jax.types import Dataset, PyTree, Split

MOST_VALIDATED = 30_000
"""Images times patterns that an epoch is scored on, at most."""

FITTED = 500
"""Training images that the last layers of decoders are fitted to, if they are."""

MOST_KEPT_BYTES = 1 << 28
"""Up to this size the base model's features of these images are kept for all epochs."""


def device_arrays(mesh: Mesh | None, split: Split) -> dict[str, jax.Array]:
    """Returns `images` `[N, H, W, C]` and `labels`, whole on every device."""
    arrays = {"images": split.images, "labels": split.labels}
    return placement.put_replicated(mesh, arrays)


def base_task(
    pipeline: Pipeline,
    dataset: Dataset,
    optimizer: optax.GradientTransformation,
    augmentation: str = "none",
    label_smoothing: float = 0.0,
    start: PyTree | None = None,
) -> Task:
    """Returns the task that trains the base model, scored by validation accuracy.

    Args:
      pipeline: whose base model is trained.
      dataset: its validation part scores.
      optimizer: for the variables.
      augmentation: of the training images, one of `AUGMENTATIONS`.
      label_smoothing: see `base_losses`.
      start: variables that the training begins with; drawn from its key if None.
    """
    validation = device_arrays(pipeline.mesh, dataset.validation)

    def score(variables: PyTree) -> dict[str, float]:
        return {SCORE: pattern_accuracy.base_accuracy(pipeline, variables, validation)}

    def init(key: jax.Array) -> PyTree:
        if start is not None:
            return start
        return pipeline.base.init(key, dataset.image_shape, dataset.classes)

    return Task(
        init=init,
        loss=base_loss(pipeline, augmentation, label_smoothing),
        score=score,
        optimizer=optimizer,
    )


def code_task(
    pipeline: Pipeline,
    frozen: PyTree,
    dataset: Dataset,
    optimizer: optax.GradientTransformation,
    config: TrainConfig | None = None,
    patterns: list[Pattern] | None = None,
) -> Task:
    """Returns the task that trains the pipeline's codes around the frozen base model.

    Erasure patterns are drawn per example: by `erasures.odds_of_harmful` for systematic
    codes, else by `erasures.sample`.

    Args:
      pipeline: whose code is trained.
      frozen: variables of the base model.
      dataset: its validation part scores, by the mean accuracy over `patterns`; of many
        patterns, on its first `MOST_VALIDATED / patterns` images.
      optimizer: for the codes' parameters.
      config: how; `TrainConfig()` if None. With `code_augmentation` the training arrays
        must have no targets.
      patterns: erasure patterns to validate on; all that lose at most `r` results if
        None.
    """
    config = config or TrainConfig()
    if patterns is None:
        patterns = erasures.patterns_up_to(pipeline.n, pipeline.r)
    images = max(1, MOST_VALIDATED // len(patterns))
    validation = {
        name: array[:images]
        for name, array in device_arrays(pipeline.mesh, dataset.validation).items()
    }

    @functools.cache
    def uncoded() -> list[Uncoded] | None:
        """Computes once for all epochs what no code changes; None if it is too much."""
        chunks = []
        for chunk in predictions.uncoded_chunks(pipeline, frozen, validation):
            chunks.append(chunk)
            if sum(kept.target.nbytes for kept in chunks) > MOST_KEPT_BYTES:
                return None
        return chunks

    def score(params: PyTree) -> dict[str, float]:
        losses = config.stage_losses
        accuracies = pattern_accuracy.measure_patterns(
            TrainedPipeline(pipeline, frozen, params),
            validation,
            patterns,
            losses,
            None if losses == "later" else uncoded(),
        )
        by_lost = pattern_accuracy.summarise([accuracies]).items()
        return {
            SCORE: sum(p.accuracy for p in accuracies) / len(accuracies),
            **{BY_LOST.format(l): summary["mean"] for l, summary in by_lost},
        }

    loss = code_loss(pipeline, config)
    begin = _beginning(pipeline, frozen, dataset, config)
    return Task(pipeline.init, loss, score, optimizer, begin)


def _beginning(
    pipeline: Pipeline, frozen: PyTree, dataset: Dataset, config: TrainConfig
) -> Callable[[PyTree], PyTree] | None:
    """Returns the function that starts a code's drawn parameters, or None."""
    if config.decoder_start == "drawn":
        return None
    params = jax.eval_shape(pipeline.init, jax.random.key(0))
    has_decoder = lambda own: isinstance(own, dict) and "decoder" in own
    if not all(map(has_decoder, pipeline.of_stages(params))):
        return None  # a baseline
    accepted = "drawn with recipe=paper"
    require("decoder_start", config.decoder_start, pipeline.systematic, accepted)
    images = dataset.train.images[:FITTED]
    return lambda params: with_ridge(pipeline, frozen, params, images, config.seed)


def base_loss(
    pipeline: Pipeline, augmentation: str = "none", label_smoothing: float = 0.0
) -> Loss:
    """Returns the loss of the base model's training; arguments as of `base_task`."""

    def loss(
        params: PyTree, frozen: PyTree, batch: dict[str, jax.Array], key: jax.Array
    ) -> tuple[jax.Array, PyTree]:
        change = AUGMENTATIONS[augmentation]
        batch = {**batch, "images": change(key, batch["images"])}
        losses, updated = base_losses(pipeline, params, batch, label_smoothing)
        return losses.mean(), updated

    return loss


def code_loss(pipeline: Pipeline, config: TrainConfig) -> Loss:
    """Returns the loss of a code's training, which draws what is lost."""

    def loss(
        params: PyTree, frozen: PyTree, batch: dict[str, Any], key: jax.Array
    ) -> tuple[jax.Array, PyTree]:
        group = pipeline.images_per_input
        if config.code_augmentation != "none":
            change_key, key = jax.random.split(key)
            change = functools.partial(
                AUGMENTATIONS[config.code_augmentation], change_key
            )
            images = groups.map_images(change, batch["images"], group)
            batch = {**batch, "images": images}
        if pipeline.examples.grouped:  # other images together in every epoch
            mix_key, key = jax.random.split(key)
            batch = groups.regroup(mix_key, batch, group)
        size = len(batch["images"])
        starts = _starts(pipeline, config, size)
        available = sample_erasures(key, pipeline, size, config, starts)
        if keep_statistics(pipeline):
            losses, updated = parity_model_losses(
                pipeline, params, frozen, batch, available, config=config
            )
            return losses.mean(), updated
        more = {"config": config, "starts": starts}
        losses = coded_losses(pipeline, params, frozen, batch, available, **more)
        return losses.mean(), {}

    return loss


def sample_erasures(
    key: jax.Array,
    pipeline: Pipeline,
    batch: int,
    config: TrainConfig | None = None,
    starts: tuple[int, ...] = (0,),
) -> jax.Array:
    """Draws the results that arrive in one training step, for each example.

    Args:
      key: of the draws.
      pipeline: its number of results, and whether its code is systematic.
      batch: B, examples in the step.
      config: how many results are lost, and how often each pattern is met;
        `TrainConfig()` if None.
      starts: for each stage the first example whose losses begin there; of one stage
        alone, it is drawn where losses may begin later.

    Returns:
      Bool `[n, B]`, True where the result arrived; `[S, n, B]` where each of S coded
      stages loses results of its own, or where parity moves: then a pattern holds from
      one stage on, drawn for each example.

    Raises:
      ValueError: see `training.config.require_patterns`.
    """
    config = config or TrainConfig()
    require_patterns(config, pipeline.k, pipeline.r)
    k, n = pipeline.k, pipeline.n
    most_lost = pipeline.r if config.l is None else config.l

    def draw(key: jax.Array) -> jax.Array:
        if pipeline.systematic and most_lost:
            weights = dict(config.pattern_weights)
            odds = erasures.odds_of_harmful(
                k, n, most_lost, config.draws, weights, beyond=config.beyond
            )
            return erasures.sample_patterns(key, odds, n, batch)
        return erasures.sample(key, n, most_lost, batch, config.beyond)

    stages = len(pipeline.stages)
    if config.stage_losses == "per_stage":
        return jax.vmap(draw)(jax.random.split(key, stages))
    if not _starts_later(pipeline, config):
        return draw(key)
    # Only where a device is missed first, its piece is decoded; so that is drawn, too.
    if len(starts) == 1:
        key, begin_key = jax.random.split(key)
        begin = jax.random.randint(begin_key, (batch,), 0, stages)
    else:
        begin = jnp.searchsorted(jnp.asarray(starts), jnp.arange(batch), "right") - 1
    later = jnp.arange(stages)[:, None, None] >= begin[None, None]
    return draw(key)[None] | ~later


def _starts_later(pipeline: Pipeline, config: TrainConfig) -> bool:
    """Returns whether losses begin in any of several stages, and then go on."""
    later = config.stage_losses == "later"
    moves = pipeline.coding.parity_moves and config.stage_losses == "held"
    return len(pipeline.stages) > 1 and (later or moves)


def _starts(pipeline: Pipeline, config: TrainConfig, batch: int) -> tuple[int, ...]:
    """Returns the first example whose losses begin in each stage, as many for all, if
    the stages before can be left out for them; else the first one of all."""
    # They can for systematic codes whose stages need nothing of each other but their
    # outputs, and on one device, since a part of the batch has other examples. Examples
    # are shuffled in every epoch, so that each one's losses begin anywhere.
    stages = len(pipeline.stages)
    alone = pipeline.mesh is None or pipeline.mesh.size == 1
    fits = alone and pipeline.whole_unless_lost and batch >= stages
    if not fits or not _starts_later(pipeline, config):
        return (0,)
    return tuple(-(-stage * batch // stages) for stage in range(stages))
