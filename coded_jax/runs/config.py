"""Settings of one run; every field is a flag of `experiments/run.py`."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Any

from coded_jax import settings
from coded_jax.checks import require
from coded_jax.codes import CODES, AnyCode, CodeConfig, is_code, name_of
from coded_jax.codes.views import DECODERS
from coded_jax.data import DATASETS
from coded_jax.data.augmentation import AUGMENTATIONS
from coded_jax.evaluation.predictions import STAGE_LOSSES
from coded_jax.models import BASE_MODELS
from coded_jax.models.registry import is_deep
from coded_jax.settings import (
    FLOAT,
    INTEGER,
    TEXT,
    Accepted,
    at_least,
    integers,
    more_than,
    one_of,
    setting,
    tuple_of,
)
from coded_jax.training.config import (
    MAX_EPOCHS,
    PRODUCTS,
    TrainConfig,
    require_patterns,
)
from coded_jax.training.optimizers import OPTIMIZERS, SCHEDULES

EVALUATED = ("test", "validation")
OWN = "own"
"""Data set and base model that are given to `protect`, not looked up by name."""

RETIRED: dict[str, Any] = {
    "ends": "all",
    "feature_weights": "alike",
    "fixed_sums": False,
    "focus": 0.0,
    "keep_measured": True,
    "parity_goes_on": False,
    "preactivations": False,
    "stage_training": "end_to_end",
    "tail_step": 0.1,
}
"""Settings of earlier versions that are no more, with the one value that their stored
results may have: what the code does without them."""

CODES_FORM = tuple_of(settings.Form(str, name_of, "a code"), ",", "codes as mds,berrut")


def _registered_or_own(registry: Collection[str]) -> Accepted:
    """Accepts the names of a registry, and `OWN`, which no flag can stand for."""
    named = one_of(registry)
    return named._replace(holds=lambda value: value == OWN or named.holds(value))


def _distinct(values: Collection[object]) -> bool:
    return len(set(values)) == len(values)


@dataclasses.dataclass(frozen=True)
class BaseConfig:
    """Settings of the base model and its training; their help texts describe them.

    Its training has the seed of the code's. `Config` checks them.
    """

    dataset: str = setting("mnist", "data set", _registered_or_own(DATASETS))
    image_size: int | None = setting(
        None,
        "rows and columns that images are resized to, or of canvases; as they are, or "
        "64, if not given",
        integers(8, 4096),
        INTEGER,
    )
    images_digest: str | None = setting(
        None,
        "of a folder's images, which a run keeps: other images are refused",
        Accepted(lambda digest: isinstance(digest, str), "16 hexadecimal digits"),
        TEXT,
    )
    base_model: str = setting("lenet5", "network", _registered_or_own(BASE_MODELS))
    base_width: float = setting(
        1.0,
        "channels of each layer, times those of the published network",
        more_than(0, 16),
    )
    base_epochs: float = setting(
        15,
        "epochs of the base model; may be a fraction",
        more_than(0, MAX_EPOCHS),
        FLOAT,
    )
    base_batch_size: int | None = setting(
        None,
        "examples per step of the base model; batch_size if not given",
        integers(1),
        INTEGER,
    )
    base_start: str | None = setting(
        None,
        "folder of a base model, as of experiments/keep_base.py, whose variables the "
        "base model's training begins with; drawn anew if not given",
        Accepted(lambda folder: isinstance(folder, str) and folder != "", "a folder"),
        TEXT,
    )
    base_learning_rate: float | None = setting(
        None,
        "of the base model, the highest one; learning_rate if not given",
        more_than(0),
        FLOAT,
    )
    base_optimizer: str = setting(
        "adam",
        "of the base model: Adam, or gradient descent with Nesterov's momentum of 0.9",
        one_of(OPTIMIZERS),
    )
    base_weight_decay: float | None = setting(
        None,
        "L2 factor of the base model; weight_decay if not given",
        at_least(0),
        FLOAT,
    )
    base_products: str = setting(
        "default",
        "what convolutions multiply in the base model's training: as the device does "
        "if not told otherwise, or bfloat16, on CPUs that have it",
        one_of(PRODUCTS),
    )
    base_schedule: str = setting(
        "cosine",
        "learning rate of the base model: falling to zero along a cosine, at first "
        "rising (one_cycle), or constant",
        one_of(SCHEDULES),
    )
    augmentation: str = setting(
        "none", "of the base model's training images", one_of(AUGMENTATIONS)
    )
    label_smoothing: float = setting(
        0.0,
        "part of each label's weight that goes to all classes alike",
        at_least(0, below=1),
    )


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """Settings of a run's evaluation; their help texts describe them, and `Config`
    checks them."""

    baselines: tuple[AnyCode, ...] = setting(
        ("zero_fill", "no_parity"),
        "other codes of the same sizes that are evaluated too; may be empty; with "
        "split=views mean_of_views is in the place of zero_fill",
        Accepted(
            lambda codes: (
                all(map(is_code, codes)) and _distinct([*map(name_of, codes)])
            ),
            lambda: f"some of {list(CODES)}, each once,",
        ),
        CODES_FORM,
    )
    tried: int | None = setting(
        None,
        "most results lost in the evaluation; r if not given",
        integers(0),
        INTEGER,
    )
    other_stage_losses: tuple[str, ...] = setting(
        (),
        "losses of several coded stages that are evaluated too, beside stage_losses",
        Accepted(
            lambda names: set(names) <= set(STAGE_LOSSES) and _distinct(names),
            f"some of {list(STAGE_LOSSES)}, each once,",
        ),
        tuple_of(TEXT, ",", "names as per_stage,later"),
    )
    evaluated: str = setting(
        "test",
        "part of the data set that is evaluated; validation in searches, whose results "
        "are no published ones",
        one_of(EVALUATED),
    )


@dataclasses.dataclass(frozen=True)
class Config(EvaluationConfig, TrainConfig, CodeConfig, BaseConfig):
    """Settings of one run, all of them; their help texts describe them.

    Raises:
      ValueError: a setting is out of range, or does not fit the others.
    """

    def __post_init__(self) -> None:
        if self.split == "views":
            for name, accepted in (("encoder", ["linear"]), ("decoder", [*DECODERS])):
                value, wording = getattr(self, name) or "linear", f"one of {accepted}"
                require(name, value, value in accepted, f"{wording} with split=views")
                object.__setattr__(self, name, value)
            own = ("mean_of_views" if x == "zero_fill" else x for x in self.baselines)
            object.__setattr__(self, "baselines", tuple(own))
        elif self.systematic and is_deep(self.base_model):
            # The dataclass is frozen, but not yet.
            object.__setattr__(self, "encoder", self.encoder or "linear")
            object.__setattr__(self, "decoder", self.decoder or "low_rank")
        CodeConfig.__post_init__(self)  # checks each setting of all records by itself
        require_patterns(self, self.k, self.r)
        if not self.ends_weights:
            accepted = "frozen without supervision and distillation, which train it,"
            require("tail", self.tail, self.tail == "frozen", accepted)
        if not self.systematic or self.decoder == "linear":
            start = self.decoder_start
            accepted = "drawn with recipe=paper or decoder=linear"
            require("decoder_start", start, start == "drawn", accepted)
        if others := self.other_stage_losses:
            several = len(self.stages or ()) > 1
            accepted = f"other ones than {self.stage_losses}, with several stages,"
            fits = several and self.stage_losses not in others
            require("other_stage_losses", others, fits, accepted)
        require("tried", self.tried, self.most_tried <= self.n, f"0..{self.n}")

    @property
    def most_lost(self) -> int:
        """Returns the largest number of results lost per training example."""
        return self.r if self.l is None else self.l

    @property
    def most_tried(self) -> int:
        """Returns the largest number of results lost in the evaluation."""
        return self.r if self.tried is None else self.tried

    @property
    def base(self) -> Config:
        """Returns the settings of the base model, and defaults of all others."""
        names = [declared.name for declared in settings.settings(BaseConfig)]
        names += ["precision", "seed"]
        if self.base_weight_decay is None:
            names.append("weight_decay")
        fields = {name: getattr(self, name) for name in names}
        fields["base_batch_size"] = self.base_batch_size or self.batch_size
        fields["base_learning_rate"] = self.base_learning_rate or self.learning_rate
        return Config(**fields)

    def to_flags(self) -> dict[str, str]:
        """Returns `{flag name: text}`; fields that are None are left out."""
        return settings.to_flags(self)

    def to_json(self) -> dict[str, Any]:
        """Returns the fields as `results.json` has them, functions by their names."""
        baselines = [name_of(code) for code in self.baselines]
        names = {"code": name_of(self.code), "baselines": baselines}
        return dataclasses.asdict(self) | names

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Config:
        """Returns the config that `results.json` has, whose tuples are lists there.

        Raises:
          ValueError: a setting is out of range, or is one of `RETIRED` with another
            value than there.
        """
        for name in RETIRED.keys() & fields.keys():
            value, today = fields[name], RETIRED[name]
            accepted = f"{today!r} alone, since this setting is no more,"
            require(name, value, value == today, accepted)
        current = {x: tuples(y) for x, y in fields.items() if x not in RETIRED}
        return cls(**current)


def tuples(value: Any) -> Any:
    """Returns a value of JSON as settings have it, with tuples for lists."""
    return tuple(map(tuples, value)) if isinstance(value, list) else value
