"""Which experiments are compiled for which targets: a sample that has them all.

LeNet-5 on each target, with a code, (k, r) and precision in turn, so that each of these
has some; VGG-16 and ResNet-18 on four targets each, of both vendors, with one chip and
with several.
"""

import functools
import itertools
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import pytest

from coded_jax.aot import programs
from coded_jax.devices.meshes import make_mesh
from coded_jax.runs.config import Config
from coded_jax.training.steps import MAPS_SEEDS
from tests.aot.described.targets import TARGETS, devices_of

SIZES = {
    "lenet5": programs.Sizes((28, 28, 1), classes=10, examples=60_000),
    "vgg16": programs.Sizes((32, 32, 3), classes=10, examples=50_000),
    "resnet18": programs.Sizes((32, 32, 3), classes=10, examples=50_000),
}
PRECISIONS = ("float32", "bfloat16")
BATCHES = ("one", "few", "many")
PIECES = ((2, 1), (4, 1), (4, 2))
CODES = {
    "mlp": {"recipe": "paper", "encoder": "mlp", "decoder": "mlp"},
    # As in the flagfiles table5_k2_r1_conv.flags and the like.
    "conv": {
        "recipe": "systematic",
        "encoder": "conv",
        "encoder_width": 32,
        "decoder": "conv",
        "decoder_width": 128,
        "decoder_channels": "joint",
    },
    "cheap": {"recipe": "systematic", "encoder": "linear", "decoder": "low_rank"},
}
STEPS = ("base", "step", "loop", "seeds") if MAPS_SEEDS else ("base", "step", "loop")
DEEP = {
    "vgg16": {"base_model": "vgg16", "stages": ((1, 2), (3, 4))},
    "resnet18": {"base_model": "resnet18", "stages": ((1, 3), (4, 5))},
}
DEEP_TARGETS = {
    "vgg16": ("v5e:1x1", "v5e:2x4", "h100:1", "h100:6"),
    "resnet18": ("v5e:1x1", "tpu7x:2x2x1", "h100:1", "h100:8"),
}

BRIEF = ("v5e:2x4", "h100:6")


class Case(NamedTuple):
    """An experiment on a target.

    Attributes:
      target: of `TARGETS`.
      network: of `SIZES`.
      code: of `CODES`.
      pieces: `(k, r)`.
      precision: of `PRECISIONS`.
    """

    target: str
    network: str
    code: str
    pieces: tuple[int, int]
    precision: str

    def __str__(self) -> str:
        about = (self.network, self.code, "+".join(map(str, self.pieces)))
        return "-".join((self.target, *about, self.precision))

    @property
    def stages(self) -> int:
        """Returns how many coded stages there are."""
        return len(DEEP[self.network]["stages"]) if self.network in DEEP else 1

    @property
    def config(self) -> Config:
        k, r = self.pieces
        fields = {"k": k, "r": r, "precision": self.precision, **CODES[self.code]}
        if self.network in DEEP:
            fields |= DEEP[self.network]
            fields |= {"grid": (1, 2) if k == 2 else (2, 2), "base_batch_size": 32}
            fields |= {"augmentation": "flip_shift"}
        return Config(**fields)


@functools.cache
def subject(case: Case) -> programs.Subject:
    config = case.config
    mesh = make_mesh(config.n, available=devices_of(case.target))
    return programs.Subject(config, SIZES[case.network], mesh)


def in_turn(options: Sequence, number: int) -> Any:
    return options[number % len(options)]


def cases() -> list[Case]:
    """Returns the experiments: LeNet-5 on each target, deep networks on four each."""
    shallow = [
        Case(
            target,
            "lenet5",
            in_turn([*CODES], i),
            in_turn(PIECES, i // 3 + i),
            in_turn(PRECISIONS, i),
        )
        for i, target in enumerate(TARGETS)
    ]
    deep = [
        Case(target, name, "cheap", in_turn(PIECES, i), in_turn(PRECISIONS, i))
        for name, targets in DEEP_TARGETS.items()
        for i, target in enumerate(targets)
    ]
    return shallow + deep


def inferred() -> list[tuple[Case, str]]:
    """Returns the cases whose inference is compiled, each with a size of its batch."""
    return [*itertools.product(cases(), BATCHES)]


def steps() -> list[tuple[Case, str]]:
    """Returns the cases whose training is compiled, each with a kind of step."""
    return [*itertools.product(cases(), STEPS)]


def evaluated() -> list[tuple[Case]]:
    """Returns the cases whose evaluation is compiled."""
    shallow = [case for case in cases() if case.network == "lenet5"]
    return [(case,) for case in shallow if case.target in DEEP_TARGETS["vgg16"]]


def is_brief(case: Case, *what: str) -> bool:
    """Returns whether a program is among the few that are compiled for every change."""
    some = case.network == "lenet5" or case.target in BRIEF
    return some and not {"many", "loop", "seeds"} & {*what}


def parameters(rows: Iterable[tuple]) -> list:
    """Returns parameters of a test, called by their values; some are marked `brief`."""
    return [
        pytest.param(
            *row,
            id="-".join(map(str, row)),
            marks=[pytest.mark.brief] if is_brief(*row) else [],
        )
        for row in rows
    ]
