"""One experiment's settings; every field is a flag of `experiments/run.py`."""

from __future__ import annotations

import dataclasses
from typing import Any

from coded_jax.codes import LEARNED
from coded_jax.codes.networks.conv import DILATIONS
from coded_jax.runs.ranges import OWN, require_in_range
from coded_jax.training.config import TrainConfig


@dataclasses.dataclass(frozen=True)
class Config(TrainConfig):
    """Settings of one run; raises ValueError for one that is out of range.

    Those of `TrainConfig`, and:

    Attributes:
      dataset: name of the data set, or `"own"`.
      base_model: name of the base model, or `"own"`.
      base_width: times the maps of the published network.
      k: data pieces, 2 or more; or 1, of replication.
      r: parity pieces, 1 or more.
      stages: first and last block, counted from 1, of every coded stage; what no stage
        has is computed whole, and what follows the last one is the central part with
        the head. One stage of all blocks if None.
      grid: pieces along height and width; `(k, 1)` if None.
      split: the k pieces are those of an `"image"`, or a `"group"` of k images whose
        worker is the whole network, see `grouping`.
      code: one of `codes.NAMES`; what follows of encoder and decoder is of the
        `"learned"` one and of its decoder with `"no_parity"`.
      baselines: other codes, for the same sizes, evaluated beside it; `code` itself,
        if it is among them, is not evaluated twice.
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
      base_epochs: epochs of the base model; may be a fraction, as `epochs`.
      base_batch_size, base_learning_rate: of the base model; as the code's if None.
      base_schedule: `"cosine"` or `"constant"` learning rate.
      augmentation: of the base model's training images.
      label_smoothing: of the base model's labels.
      precision: that encoder, `f_conv` and decoder compute in; what is trained, the
        head and the losses are float32.
    """

    dataset: str = "mnist"
    base_model: str = "lenet5"
    base_width: float = 1.0
    k: int = 2
    r: int = 1
    stages: tuple[tuple[int, int], ...] | None = None
    grid: tuple[int, int] | None = None
    split: str = "image"
    code: str = LEARNED
    baselines: tuple[str, ...] = ("zero_fill", "no_parity")
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
    base_epochs: float = 15
    base_batch_size: int | None = None
    base_learning_rate: float | None = None
    base_schedule: str = "cosine"
    augmentation: str = "none"
    label_smoothing: float = 0.0
    precision: str = "float32"

    def __post_init__(self) -> None:
        deep = self.base_model not in ("lenet5", OWN)
        cheap = deep and self.recipe == "systematic"
        networks = {"encoder": "linear", "decoder": "low_rank"}
        for name, network in networks.items():
            if getattr(self, name) is None:
                # The dataclass is frozen, but not yet.
                object.__setattr__(self, name, network if cheap else "mlp")
        super().__post_init__()
        require_in_range(self)

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
