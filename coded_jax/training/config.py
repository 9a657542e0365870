"""Settings of a code's training; each is declared once, see `settings.setting`."""

from __future__ import annotations

import dataclasses
import numbers
from typing import Any

from coded_jax.checks import is_integer, require
from coded_jax.codes.erasures import DRAWS, Pattern, harmful
from coded_jax.data.augmentation import AUGMENTATIONS
from coded_jax.evaluation.predictions import STAGE_LOSSES
from coded_jax.settings import (
    FLOAT,
    INTEGER,
    Accepted,
    Form,
    at_least,
    check,
    integers,
    more_than,
    one_of,
    setting,
    tuple_of,
)

PRODUCTS = ("default", "bfloat16")
DECODER_STARTS = ("drawn", "ridge")
MAX_EPOCHS = 1e6
LIGHTEST, HEAVIEST = 1e-6, 1e6
PATTERN = tuple_of(INTEGER, "+", "indices as 0+4")


def _parse_weight(text: str) -> tuple[Pattern, float]:
    pattern, _, weight = text.partition(":")
    return PATTERN.parse(pattern), float(weight)


def _show_weight(pair: tuple[Pattern, float]) -> str:
    pattern, weight = pair
    return f"{PATTERN.show(pattern)}:{weight}"


PATTERN_WEIGHTS = tuple_of(
    Form(_parse_weight, _show_weight, "0+4:8"), ",", "patterns and weights as 0+4:8,1:2"
)


def _are_weights(value: Any) -> bool:
    """Returns whether a value is a tuple of patterns with their weights."""
    return isinstance(value, tuple) and all(
        isinstance(pattern, tuple)
        and all(map(is_integer, pattern))
        and isinstance(weight, numbers.Real)
        for pattern, weight in value
    )


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Settings of a code's training; raises ValueError for one that is out of range.

    The help of each setting is its description.
    """

    l: int | None = setting(
        None,
        "most results lost per training example; r if not given",
        integers(0),
        INTEGER,
    )
    stage_losses: str = setting(
        "held",
        "an erasure pattern holds for all stages, is drawn for each, or holds from one "
        "on that is drawn (later), in training and evaluation",
        one_of(STAGE_LOSSES),
    )
    draws: str = setting(
        "counts",
        "erasure patterns in training: all numbers of losses alike, or all patterns",
        one_of(DRAWS),
    )
    beyond: float = setting(
        0.0,
        "part of the training examples that lose more than l results, r if l is not "
        "given",
        at_least(0, below=1),
    )
    pattern_weights: tuple[tuple[Pattern, float], ...] = setting(
        (),
        "how many times as often a pattern is drawn, as 0+4:8,1:0.5",
        Accepted(_are_weights, "patterns and weights as (((0, 4), 8.0), ((1,), 2.0)),"),
        PATTERN_WEIGHTS,
    )
    code_augmentation: str = setting(
        "none", "of the images that codes are trained on", one_of(AUGMENTATIONS)
    )
    distillation: float = setting(
        0.0, "weight of the squared error of the head's hidden values", at_least(0)
    )
    supervision: float = setting(
        0.0,
        "weight of the cross-entropy of the answers with the labels",
        at_least(0),
    )
    decoder_start: str = setting(
        "drawn",
        "weights that decoders begin with: drawn, or with their last layer fitted by a "
        "ridge regression (ridge), of systematic codes",
        one_of(DECODER_STARTS),
    )
    passes: float = setting(
        1,
        "passes over the images, each with its own augmentation, that decoders of "
        "views are fitted to; may be a fraction",
        more_than(0, MAX_EPOCHS),
        FLOAT,
    )
    epochs: float = setting(
        10, "epochs of the code; may be a fraction", more_than(0, MAX_EPOCHS), FLOAT
    )
    ridge: float | None = setting(
        None,
        "penalty of decoders that are fitted by least squares, as those of views, over "
        "the mean square of a result's values; chosen by the validation part if not "
        "given",
        more_than(0),
        FLOAT,
    )
    train_images: int | None = setting(
        None,
        "images that the code learns from; all of the training split if not given",
        integers(1),
        INTEGER,
    )
    batch_size: int = setting(64, "examples per step", integers(1))
    learning_rate: float = setting(1e-3, "of Adam", more_than(0))
    weight_decay: float = setting(1e-5, "L2 factor", at_least(0))
    products: str = setting(
        "default",
        "what convolutions multiply in the code's training: as the device does if not "
        "told otherwise, or bfloat16, on CPUs that have it",
        one_of(PRODUCTS),
    )
    seeds: int = setting(1, "how often each code is trained", integers(1, 100))
    seed: int = setting(0, "fixes the run", integers(0, 2**32 - 1))

    def __post_init__(self) -> None:
        check(self)

    @property
    def ends_weights(self) -> list[float]:
        """Returns the weights of distillation and supervision, those that are not 0."""
        return [weight for weight in (self.distillation, self.supervision) if weight]


def require_patterns(config: TrainConfig, k: int, r: int) -> None:
    """Checks that erasure patterns of a training can occur with a code.

    Args:
      config: of the training.
      k, r: data and parity pieces of the code.

    Raises:
      ValueError: more results are lost than the code has parity pieces, or a pattern
        has a weight that is never drawn.
    """
    most = r if config.l is None else config.l
    require("l", config.l, most <= r, f"0..r, here 0..{r}")
    fits = not config.beyond or most < k + r - 1
    require("beyond", config.beyond, fits, f"0 with k={k} and l={most}")
    weights = config.pattern_weights
    if not weights:
        return
    lost = [pattern for pattern, _ in weights]
    fits = len(set(lost)) == len(lost) and set(lost) <= set(harmful(k, k + r, most))
    fits = fits and all(LIGHTEST <= weight <= HEAVIEST for _, weight in weights)
    accepted = (
        f"patterns that lose a data piece and at most {most} of {k + r} results, each "
        "once, with weights of 1e-6..1e6,"
    )
    require("pattern_weights", weights, fits, accepted)
