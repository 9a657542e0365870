"""Which settings are accepted, and the line that tells of one that is not."""

from __future__ import annotations

import math
from typing import Any

from coded_jax.codes import DECODER_CHANNELS, DECODERS, ENCODERS, NAMES, SUMS
from coded_jax.codes.erasures import harmful
from coded_jax.data import DATASETS
from coded_jax.data.augmentation import AUGMENTATIONS
from coded_jax.models import BASE_MODELS

RECIPES = ("paper", "systematic")
PRECISIONS = ("float32", "bfloat16")
SCHEDULES = ("cosine", "constant")
SPLITS = ("image", "group")
MAX_N = 12  # 2^12 erasure patterns are the most that an evaluation is asked for
OWN = "own"  # data and base model that `own.protect` is given, not looked up by name
MAX_EPOCHS, MAX_WIDTH, MAX_DILATION, MAX_KERNEL = 1e6, 2**16, 2**10, 31


def require_in_range(config: Any) -> None:
    """Raises ValueError, which names the setting, its value and what is accepted."""
    for name, value, accepted in (
        ("dataset", config.dataset, (*DATASETS, OWN)),
        ("base_model", config.base_model, (*BASE_MODELS, OWN)),
        ("base_schedule", config.base_schedule, SCHEDULES),
        ("augmentation", config.augmentation, AUGMENTATIONS),
        ("recipe", config.recipe, RECIPES),
        ("precision", config.precision, PRECISIONS),
        ("encoder", config.encoder, ENCODERS),
        ("decoder", config.decoder, DECODERS),
        ("sums", config.sums, tuple(SUMS)),
        ("split", config.split, SPLITS),
        ("code", config.code, NAMES),
        ("decoder_channels", config.decoder_channels, (None, *DECODER_CHANNELS)),
    ):
        _check(name, value, value in accepted, f"one of {list(accepted)}")
    least = 1 if config.code == "replication" else 2  # copies of the whole image
    _check("k", config.k, least <= config.k < MAX_N, f"{least}..{MAX_N - 1}")
    most = MAX_N - config.k
    _check("r", config.r, 1 <= config.r <= most, f"1..{most} with k={config.k}")
    _check(
        "l", config.l, 0 <= config.most_lost <= config.r, f"0..r, here 0..{config.r}"
    )
    _check("tried", config.tried, 0 <= config.most_tried <= config.n, f"0..{config.n}")
    _check_pattern_weights(config)
    fits = set(config.baselines) <= set(NAMES)
    fits = fits and len(set(config.baselines)) == len(config.baselines)
    _check("baselines", config.baselines, fits, f"some of {list(NAMES)}, each once,")
    whole = config.split == "image" or (config.grid is None and config.stages is None)
    _check("split", config.split, whole, "image with a grid or stages")
    grid = config.pieces
    fits = len(grid) == 2 and min(grid) >= 1 and math.prod(grid) == config.k
    _check("grid", config.grid, fits, f"rows x columns with a product of k={config.k}")
    bounds = [0, *(block for stage in config.stages or () for block in stage)]
    fits = config.stages is None or (
        len(bounds) > 1
        and all(len(stage) == 2 and stage[0] <= stage[1] for stage in config.stages)
        and all(a < b for a, b in zip(bounds[::2], bounds[1::2], strict=False))
    )
    _check("stages", config.stages, fits, "ascending first-last blocks from 1 on")
    width = config.base_width
    _check("base_width", width, 0 < width <= 16, "more than 0 and at most 16")
    smoothing = config.label_smoothing
    _check("label_smoothing", smoothing, 0 <= smoothing < 1, "0 or more, below 1")
    for name in ("encoder_width", "decoder_width"):
        value = getattr(config, name)
        fits = value is None or 1 <= value <= MAX_WIDTH
        _check(name, value, fits, f"1..{MAX_WIDTH}")
    for name in ("dilations", "decoder_dilations"):
        given = getattr(config, name)
        fits = given is None or given and 1 <= min(given) <= max(given)
        fits = bool(fits) and (given is None or max(given) <= MAX_DILATION)
        _check(name, given, fits, f"integers in 1..{MAX_DILATION}")
    fits = config.kernel % 2 == 1 and 1 <= config.kernel <= MAX_KERNEL
    _check("kernel", config.kernel, fits, f"an odd number in 1..{MAX_KERNEL}")
    for name in ("base_epochs",):
        value = getattr(config, name)
        fits = 0 < value <= MAX_EPOCHS
        _check(name, value, fits, f"more than 0 and at most {MAX_EPOCHS:g}")
    for name in ("base_learning_rate",):
        rate = getattr(config, name)
        fits = rate is None or 0 < rate < math.inf
        _check(name, rate, fits, "more than 0")
    fits = not config.nonnegative or config.split == "image"
    _check("nonnegative", config.nonnegative, fits, "False with split=group")
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
