"""Which settings are accepted, and the line that tells of one that is not."""

from __future__ import annotations

import math
from typing import Any

from coded_jax.codes import CODES, is_code, name_of
from coded_jax.codes.erasures import harmful
from coded_jax.data import DATASETS
from coded_jax.data.augmentation import AUGMENTATIONS
from coded_jax.models import BASE_MODELS

SCHEDULES = ("cosine", "constant")
OWN = "own"  # data and base model that `own.protect` is given, not looked up by name
MAX_EPOCHS = 1e6


def require_in_range(config: Any) -> None:
    """Raises ValueError, which names the setting, its value and what is accepted."""
    for name, value, accepted in (
        ("dataset", config.dataset, (*DATASETS, OWN)),
        ("base_model", config.base_model, (*BASE_MODELS, OWN)),
        ("base_schedule", config.base_schedule, SCHEDULES),
        ("augmentation", config.augmentation, tuple(AUGMENTATIONS)),
    ):
        _check(name, value, value in accepted, f"one of {list(accepted)}")
    _check(
        "l", config.l, 0 <= config.most_lost <= config.r, f"0..r, here 0..{config.r}"
    )
    _check("tried", config.tried, 0 <= config.most_tried <= config.n, f"0..{config.n}")
    _check_pattern_weights(config)
    fits = all(map(is_code, config.baselines))
    names = {name_of(code) for code in config.baselines} if fits else set()
    fits = len(names) == len(config.baselines)
    _check("baselines", config.baselines, fits, f"some of {list(CODES)}, each once,")
    width = config.base_width
    _check("base_width", width, 0 < width <= 16, "more than 0 and at most 16")
    smoothing = config.label_smoothing
    _check("label_smoothing", smoothing, 0 <= smoothing < 1, "0 or more, below 1")
    for name in ("base_epochs",):
        value = getattr(config, name)
        fits = 0 < value <= MAX_EPOCHS
        _check(name, value, fits, f"more than 0 and at most {MAX_EPOCHS:g}")
    for name in ("base_learning_rate",):
        rate = getattr(config, name)
        fits = rate is None or 0 < rate < math.inf
        _check(name, rate, fits, "more than 0")
    for name in ("base_batch_size",):
        size = getattr(config, name)
        _check(name, size, size is None or size >= 1, "1 or more")


def _check_pattern_weights(config: Any) -> None:
    weights = config.pattern_weights
    known = harmful(config.k, config.n, config.most_lost) if weights else []
    lost = [pattern for pattern, _ in weights]
    fits = len(set(lost)) == len(lost) and set(lost) <= set(known)
    fits = fits and all(1e-6 <= weight <= 1e6 for _, weight in weights)
    accepted = f"patterns that lose a data piece and at most {config.most_lost} of "
    accepted += f"{config.n} results, each once, with weights of 1e-6..1e6,"
    _check("pattern_weights", weights, fits, accepted)


def _check(name: str, value: object, holds: bool, accepted: str) -> None:
    if not holds:
        raise ValueError(f"{name}: {value!r} given, {accepted} accepted")
