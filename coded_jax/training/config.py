"""Settings of a code's training; each is declared once, see `settings.setting`."""

from __future__ import annotations

import dataclasses

from coded_jax.checks import require
from coded_jax.codes.erasures import DRAWS, Pattern
from coded_jax.data.augmentation import AUGMENTATIONS
from coded_jax.evaluation.predictions import STAGE_LOSSES
from coded_jax.settings import (
    FLOAT,
    INTEGER,
    Form,
    at_least,
    check,
    integers,
    more_than,
    one_of,
    setting,
    tuple_of,
)

STAGE_TRAININGS = ("end_to_end", "per_stage")
MAX_EPOCHS = 1e6
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
    stage_training: str = setting(
        "end_to_end",
        "a stage is trained on what the stages before it reconstructed, or (per_stage) "
        "on their exact outputs",
        one_of(STAGE_TRAININGS),
    )
    stage_losses: str = setting(
        "held",
        "an erasure pattern holds for all stages, or is drawn for each, in training "
        "and evaluation",
        one_of(STAGE_LOSSES),
    )
    draws: str = setting(
        "counts",
        "erasure patterns in training: all numbers of losses alike, or all patterns",
        one_of(DRAWS),
    )
    pattern_weights: tuple[tuple[Pattern, float], ...] = setting(
        (),
        "how many times as often a pattern is drawn, as 0+4:8,1:0.5",
        form=PATTERN_WEIGHTS,
    )
    code_augmentation: str = setting(
        "none", "of the images that codes are trained on", one_of(AUGMENTATIONS)
    )
    distillation: float = setting(
        0.0,
        "weight of the squared error of the head's hidden values",
        at_least(0),
    )
    supervision: float = setting(
        0.0,
        "weight of the cross-entropy of the answers with the labels",
        at_least(0),
    )
    epochs: float = setting(
        10, "epochs of the code; may be a fraction", more_than(0, MAX_EPOCHS), FLOAT
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
    seeds: int = setting(1, "how often each code is trained", integers(1, 100))
    seed: int = setting(0, "fixes the run", integers(0, 2**32 - 1))

    def __post_init__(self) -> None:
        check(self)
        for name in ("distillation", "supervision"):
            weight = getattr(self, name)
            fits = weight == 0 or self.stage_training == "end_to_end"
            require(name, weight, fits, "0 with stage_training=per_stage")
