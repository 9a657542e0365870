"""One experiment's settings; every field is a flag of `experiments/run.py`."""

from __future__ import annotations

import dataclasses
from typing import Any

from coded_jax import settings
from coded_jax.codes import AnyCode, CodeConfig, name_of
from coded_jax.models.registry import is_deep
from coded_jax.runs.ranges import require_in_range
from coded_jax.training.config import TrainConfig


@dataclasses.dataclass(frozen=True)
class Config(CodeConfig, TrainConfig):
    """Settings of one run; raises ValueError for one that is out of range.

    Those of `CodeConfig` and `TrainConfig`, and:

    Attributes:
      dataset: name of the data set, or `"own"`.
      base_model: name of the base model, or `"own"`.
      base_width: times the maps of the published network.
      baselines: other codes, for the same sizes, evaluated beside it; `code` itself,
        if it is among them, is not evaluated twice.
      tried: results lost in the evaluation, at most; `r` if None.
      base_epochs: epochs of the base model; may be a fraction, as `epochs`.
      base_batch_size, base_learning_rate: of the base model; as the code's if None.
      base_schedule: `"cosine"` or `"constant"` learning rate.
      augmentation: of the base model's training images.
      label_smoothing: of the base model's labels.
    """

    dataset: str = "mnist"
    base_model: str = "lenet5"
    base_width: float = 1.0
    baselines: tuple[AnyCode, ...] = ("zero_fill", "no_parity")
    tried: int | None = None
    base_epochs: float = 15
    base_batch_size: int | None = None
    base_learning_rate: float | None = None
    base_schedule: str = "cosine"
    augmentation: str = "none"
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        deep = is_deep(self.base_model)
        cheap = deep and self.recipe == "systematic"
        networks = {"encoder": "linear", "decoder": "low_rank"}
        for name, network in networks.items():
            if getattr(self, name) is None:
                # The dataclass is frozen, but not yet.
                object.__setattr__(self, name, network if cheap else "mlp")
        CodeConfig.__post_init__(self)
        TrainConfig.__post_init__(self)
        require_in_range(self)

    @property
    def most_lost(self) -> int:
        """Most results lost per training example."""
        return self.r if self.l is None else self.l

    @property
    def most_tried(self) -> int:
        """Most results lost in the evaluation."""
        return self.r if self.tried is None else self.tried

    @property
    def base(self) -> Config:
        """Returns the settings of the base model, and defaults of all others."""
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
        declared = settings.to_flags(self)
        fields["baselines"] = ",".join(map(name_of, self.baselines))
        return {
            name: declared.get(name, str(value))
            for name, value in fields.items()
            if value is not None
        }

    def to_json(self) -> dict[str, Any]:
        """Returns the fields as `results.json` holds them, functions by their names."""
        names = {
            "code": name_of(self.code),
            "baselines": [*map(name_of, self.baselines)],
        }
        return dataclasses.asdict(self) | names

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Config:
        """The config that `results.json` holds, whose tuples have become lists."""
        return cls(**{name: _tuples(value) for name, value in fields.items()})


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
