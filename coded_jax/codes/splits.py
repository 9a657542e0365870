"""Splits an image into pieces, groups whole images, or splits every convolution.

Flags and `results.json` have flat settings, `split` and those of each way to split;
`splitting_of` makes one of these records of them. A setting that is a field of others
alone is refused.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

from coded_jax.checks import require

Grid = tuple[int, int]
Stages = tuple[tuple[int, int], ...]


@dataclasses.dataclass(frozen=True)
class ImageSplit:
    """Pieces of one image, cut anew in every coded stage.

    Its fields are settings of `CodeConfig`.

    Raises:
      ValueError: a grid has not k pieces, there is not one for each stage, or `grid` is
        given beside `stage_grids`.
    """

    k: int
    stages: Stages | None
    grid: Grid | None
    stage_grids: tuple[Grid, ...] | None
    halo: int
    tail: str

    def __post_init__(self) -> None:
        k, number = self.k, len(self.stages or (0,))
        fits = self.grid is None or math.prod(self.grid) == k
        require("grid", self.grid, fits, f"rows x columns with a product of k={k}")
        if self.stage_grids is not None:
            fits = [*map(math.prod, self.stage_grids)] == [k] * number
            accepted = f"rows x columns with a product of k={k}, {number} of them,"
            require("stage_grids", self.stage_grids, fits, accepted)
            require("grid", self.grid, self.grid is None, "none with stage_grids")

    def grid_of(self, stage: int) -> Grid:
        """Returns rows and columns of pieces in a coded stage, counted from 0."""
        return self.stage_grids[stage] if self.stage_grids else self.grid or (self.k, 1)


@dataclasses.dataclass(frozen=True)
class GroupSplit:
    """k images coded together, each of which the whole network computes."""

    k: int


@dataclasses.dataclass(frozen=True)
class ConvolutionSplit:
    """Pieces of the input of every convolution, each one coded by itself.

    Its fields are settings of `CodeConfig`.
    """

    k: int
    stages: Stages | None
    least_spared: float


Splitting = ImageSplit | GroupSplit | ConvolutionSplit

SPLITS: dict[str, type[Splitting]] = {
    "image": ImageSplit,
    "group": GroupSplit,
    "convolution": ConvolutionSplit,
}


def splitting_of(settings: Any) -> Splitting:
    """Returns the record of the way to split that flat settings name.

    Args:
      settings: a `CodeConfig`.

    Raises:
      ValueError: a setting that this way to split has not is no default, or the
        settings of the record do not fit each other.
    """
    names = {x: [f.name for f in dataclasses.fields(x)] for x in SPLITS.values()}
    record = SPLITS[settings.split]
    for name in itertools.chain(*names.values()):
        if name not in names[record]:
            value, default = getattr(settings, name), getattr(type(settings), name)
            shown = "none" if default is None else default
            accepted = f"{shown} with split={settings.split}"
            require(name, value, value == default, accepted)
    return record(**{name: getattr(settings, name) for name in names[record]})
