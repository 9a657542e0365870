"""One experiment's settings; every field is a flag of `experiments/run.py`."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from coded_jax.augmentation import AUGMENTATIONS
from coded_jax.codes import (
    DECODER_CHANNELS,
    DECODERS,
    ENCODERS,
    LEARNED,
    NAMES,
    SUMS,
)
from coded_jax.codes.conv import DILATIONS
from coded_jax.data import DATASETS
from coded_jax.erasures import DRAWS, Pattern, harmful
from coded_jax.models import BASE_MODELS
from coded_jax.predictions import STAGE_LOSSES
from coded_jax.tasks import STAGE_TRAININGS

RECIPES = ("paper", "systematic")
PRECISIONS = ("float32", "bfloat16")
SCHEDULES = ("cosine", "constant")
SPLITS = ("image", "group")
MAX_N = 12  # 2^12 erasure patterns are the most that an evaluation is asked for
OWN = "own"  # data and base model that `own.protect` is given, not looked up by name
MAX_EPOCHS, MAX_WIDTH, MAX_DILATION, MAX_KERNEL = 1e6, 2**16, 2**10, 31


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of one run; raises ValueError for one that is out of range.

    Attributes:
      dataset: name of the data set, or `"own"`.
      base_model: name of the base model, or `"own"`.
      base_width: times the maps of the published network.
      k: data pieces, 2 or more; or 1, of replication.
      r: parity pieces, 1 or more.
      l: results lost per training example, at most; `r` if None.
      stages: first and last block, counted from 1, of every coded stage; what no stage
        has is computed whole, and what follows the last one is the central part with
        the head. One stage of all blocks if None.
      stage_training: `"end_to_end"` (a stage is trained on what the stages before it
        reconstructed) or `"per_stage"` (on what they should have).
      stage_losses: what is lost is `"held"` for all stages or drawn `"per_stage"`.
      grid: pieces along height and width; `(k, 1)` if None.
      split: the k pieces are those of an `"image"`, or a `"group"` of k images whose
        worker is the whole network, see `grouping`.
      code: one of `codes.NAMES`; what follows of encoder and decoder is of the
        `"learned"` one and of its decoder with `"no_parity"`.
      baselines: other codes, for the same sizes, evaluated beside it; `code` itself,
        if it is among them, is not evaluated twice.
      seeds: how often the code is trained, and each baseline that is.
      tried: results lost in the evaluation, at most; `r` if None.
      recipe: `"paper"` (the decoder regenerates all shares, constant learning rate) or
        `"systematic"` (what arrived is passed through, cosine decay).
      encoder, decoder: one of `codes.ENCODERS` and of `codes.DECODERS`. If None, "mlp";
        but the cheap "linear" and "low_rank" for systematic codes of deep networks.
      encoder_width, decoder_width: of the hidden layers; the network's own if None.
      dilations: of the layers of `conv` networks, see `codes.conv.DilatedStack`.
      decoder_dilations: of the decoder's; as the encoder's if None.
      kernel: rows and columns of their kernels, an odd number.
      decoder_channels: `"joint"` or `"independent"`; the decoder's own if None.
      nonnegative: whether a systematic decoder ends in a ReLU, as a paper's one does.
      sums: what the parity pieces of a systematic code are at first, one of
        `codes.SUMS`.
      draws: how often a systematic code meets each erasure pattern in training, one of
        `erasures.DRAWS`.
      pattern_weights: pairs of a pattern and of how many times as often it is met.
      code_augmentation: of the images that codes are trained on.
      distillation: weight of the error of what the head makes of the features.
      supervision: weight of the cross-entropy of its answers with the labels.
      base_epochs: epochs of the base model; may be a fraction, as `epochs`.
      base_batch_size, base_learning_rate: of the base model; as the code's if None.
      base_schedule: `"cosine"` or `"constant"` learning rate.
      augmentation: of the base model's training images.
      label_smoothing: of the base model's labels.
      epochs: epochs of the code, and of each trained baseline.
      train_images: that these learn from, of the training split's; all if None.
      batch_size: examples per step.
      learning_rate: of Adam.
      weight_decay: L2 factor.
      precision: that encoder, `f_conv` and decoder compute in; what is trained, the
        head and the losses are float32.
      seed: fixes the run.
    """

    dataset: str = "mnist"
    base_model: str = "lenet5"
    base_width: float = 1.0
    k: int = 2
    r: int = 1
    l: int | None = None
    stages: tuple[tuple[int, int], ...] | None = None
    stage_training: str = "end_to_end"
    stage_losses: str = "held"
    grid: tuple[int, int] | None = None
    split: str = "image"
    code: str = LEARNED
    baselines: tuple[str, ...] = ("zero_fill", "no_parity")
    seeds: int = 1
    tried: int | None = None
    recipe: str = "paper"
    encoder: str | None = None
    decoder: str | None = None
    encoder_width: int | None = None
    decoder_width: int | None = None
    dilations: tuple[int, ...] = DILATIONS
    decoder_dilations: tuple[int, ...] | None = None
    kernel: int = 3
    decoder_channels: str | None = None
    nonnegative: bool = False
    sums: str = "cosine"
    draws: str = "counts"
    pattern_weights: tuple[tuple[Pattern, float], ...] = ()
    code_augmentation: str = "none"
    distillation: float = 0.0
    supervision: float = 0.0
    base_epochs: float = 15
    base_batch_size: int | None = None
    base_learning_rate: float | None = None
    base_schedule: str = "cosine"
    augmentation: str = "none"
    label_smoothing: float = 0.0
    epochs: float = 10
    train_images: int | None = None
    batch_size: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 1e-5
    precision: str = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        deep = self.base_model not in ("lenet5", OWN)
        cheap = deep and self.recipe == "systematic"
        networks = {"encoder": "linear", "decoder": "low_rank"}
        for name, network in networks.items():
            if getattr(self, name) is None:
                # The dataclass is frozen, but not yet.
                object.__setattr__(self, name, network if cheap else "mlp")
        for name, value, accepted in (
            ("dataset", self.dataset, (*DATASETS, OWN)),
            ("base_model", self.base_model, (*BASE_MODELS, OWN)),
            ("stage_training", self.stage_training, STAGE_TRAININGS),
            ("stage_losses", self.stage_losses, STAGE_LOSSES),
            ("base_schedule", self.base_schedule, SCHEDULES),
            ("augmentation", self.augmentation, AUGMENTATIONS),
            ("code_augmentation", self.code_augmentation, AUGMENTATIONS),
            ("recipe", self.recipe, RECIPES),
            ("precision", self.precision, PRECISIONS),
            ("encoder", self.encoder, ENCODERS),
            ("decoder", self.decoder, DECODERS),
            ("sums", self.sums, tuple(SUMS)),
            ("draws", self.draws, DRAWS),
            ("split", self.split, SPLITS),
            ("code", self.code, NAMES),
            ("decoder_channels", self.decoder_channels, (None, *DECODER_CHANNELS)),
        ):
            _check(name, value, value in accepted, f"one of {list(accepted)}")
        least = 1 if self.code == "replication" else 2  # copies of the whole image
        _check("k", self.k, least <= self.k < MAX_N, f"{least}..{MAX_N - 1}")
        most = MAX_N - self.k
        _check("r", self.r, 1 <= self.r <= most, f"1..{most} with k={self.k}")
        _check("l", self.l, 0 <= self.most_lost <= self.r, f"0..r, here 0..{self.r}")
        _check("tried", self.tried, 0 <= self.most_tried <= self.n, f"0..{self.n}")
        self._check_pattern_weights()
        _check("seeds", self.seeds, 1 <= self.seeds <= 100, "1..100")
        fits = set(self.baselines) <= set(NAMES)
        fits = fits and len(set(self.baselines)) == len(self.baselines)
        _check("baselines", self.baselines, fits, f"some of {list(NAMES)}, each once,")
        whole = self.split == "image" or (self.grid is None and self.stages is None)
        _check("split", self.split, whole, "image with a grid or stages")
        grid = self.pieces
        fits = len(grid) == 2 and min(grid) >= 1 and math.prod(grid) == self.k
        _check("grid", self.grid, fits, f"rows x columns with a product of k={self.k}")
        bounds = [0, *(block for stage in self.stages or () for block in stage)]
        fits = self.stages is None or (
            len(bounds) > 1
            and all(len(stage) == 2 and stage[0] <= stage[1] for stage in self.stages)
            and all(a < b for a, b in zip(bounds[::2], bounds[1::2], strict=False))
        )
        _check("stages", self.stages, fits, "ascending first-last blocks from 1 on")
        width = self.base_width
        _check("base_width", width, 0 < width <= 16, "more than 0 and at most 16")
        smoothing = self.label_smoothing
        _check("label_smoothing", smoothing, 0 <= smoothing < 1, "0 or more, below 1")
        for name in ("encoder_width", "decoder_width"):
            value = getattr(self, name)
            fits = value is None or 1 <= value <= MAX_WIDTH
            _check(name, value, fits, f"1..{MAX_WIDTH}")
        for name in ("dilations", "decoder_dilations"):
            given = getattr(self, name)
            fits = given is None or given and 1 <= min(given) <= max(given)
            fits = bool(fits) and (given is None or max(given) <= MAX_DILATION)
            _check(name, given, fits, f"integers in 1..{MAX_DILATION}")
        fits = self.kernel % 2 == 1 and 1 <= self.kernel <= MAX_KERNEL
        _check("kernel", self.kernel, fits, f"an odd number in 1..{MAX_KERNEL}")
        for name in ("base_epochs", "epochs"):
            value = getattr(self, name)
            fits = 0 < value <= MAX_EPOCHS
            _check(name, value, fits, f"more than 0 and at most {MAX_EPOCHS:g}")
        for name in ("learning_rate", "base_learning_rate"):
            rate = getattr(self, name)
            fits = rate is None or 0 < rate < math.inf
            _check(name, rate, fits, "more than 0")
        for name in ("distillation", "supervision"):
            weight = getattr(self, name)
            fits = 0 <= weight < math.inf
            fits = fits and (weight == 0 or self.stage_training == "end_to_end")
            _check(name, weight, fits, "0 or more, and 0 for training per_stage,")
        fits = not self.nonnegative or self.split == "image"
        _check("nonnegative", self.nonnegative, fits, "False with split=group")
        decay = self.weight_decay
        _check("weight_decay", decay, 0 <= decay < math.inf, "0 or more")
        for name in ("batch_size", "base_batch_size", "train_images"):
            size = getattr(self, name)
            _check(name, size, size is None or size >= 1, "1 or more")
        _check("seed", self.seed, 0 <= self.seed < 2**32, "0..2^32-1")

    def _check_pattern_weights(self) -> None:
        weights = self.pattern_weights
        known = harmful(self.k, self.n, self.most_lost) if weights else []
        lost = [pattern for pattern, _ in weights]
        fits = len(set(lost)) == len(lost) and set(lost) <= set(known)
        fits = fits and all(1e-6 <= weight <= 1e6 for _, weight in weights)
        accepted = f"patterns that lose a data piece and at most {self.most_lost} of "
        accepted += f"{self.n} results, each once, with weights of 1e-6..1e6,"
        _check("pattern_weights", weights, fits, accepted)

    @property
    def n(self) -> int:
        """All pieces, data and parity."""
        return self.k + self.r

    @property
    def most_lost(self) -> int:
        """Most results lost per training example."""
        return self.r if self.l is None else self.l

    @property
    def most_tried(self) -> int:
        """Most results lost in the evaluation."""
        return self.r if self.tried is None else self.tried

    @property
    def pieces(self) -> tuple[int, int]:
        """The grid, its default filled in."""
        return (self.k, 1) if self.grid is None else self.grid

    @property
    def base(self) -> Config:
        """What the base model depends on; everything else is as by default."""
        names = ("dataset", "precision", "weight_decay", "seed")
        names += tuple(f.name for f in dataclasses.fields(self) if "base_" in f.name)
        names += ("augmentation", "label_smoothing")
        settings = {name: getattr(self, name) for name in names}
        settings["base_batch_size"] = settings["base_batch_size"] or self.batch_size
        settings["base_learning_rate"] = (
            settings["base_learning_rate"] or self.learning_rate
        )
        return Config(**settings)

    def to_flags(self) -> dict[str, str]:
        """`{flag name: value}`; fields that are None are left out."""
        fields = dataclasses.asdict(self)
        if self.stages is not None:
            fields["stages"] = ",".join(f"{a}-{b}" for a, b in self.stages)
        fields["grid"] = None if self.grid is None else "x".join(map(str, self.grid))
        fields["pattern_weights"] = ",".join(
            "+".join(map(str, pattern)) + f":{weight}"
            for pattern, weight in self.pattern_weights
        )
        for name in ("dilations", "decoder_dilations", "baselines"):
            if fields[name] is not None:
                fields[name] = ",".join(map(str, fields[name]))
        return {name: str(v) for name, v in fields.items() if v is not None}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Config:
        """The config that `results.json` holds, whose tuples have become lists."""
        return cls(**{name: _tuples(value) for name, value in fields.items()})


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _check(name: str, value: object, holds: bool, accepted: str) -> None:
    if not holds:
        raise ValueError(f"{name}: {value!r} given, {accepted} accepted")
