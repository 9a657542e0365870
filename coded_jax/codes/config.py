"""Settings of a code: its sizes, its name, the way to split, and those of networks.

Flags and `results.json` have flat settings, `split` and those of each way to split;
`splitting_of` makes one of four records of them. A setting that is a field of others
alone is refused.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

from coded_jax.checks import is_integer, require
from coded_jax.codes.learned_config import LearnedConfig
from coded_jax.codes.registry import CODES, LEARNED, AnyCode, entry_of, is_code, name_of
from coded_jax.settings import (
    INTEGER,
    Accepted,
    Form,
    integers,
    one_of,
    setting,
    tuple_of,
)
from coded_jax.splitting.views import NAMES, WORDING, is_view

PRECISIONS = ("float32", "bfloat16")
TAILS = ("frozen", "tuned")
MAX_N = 12  # 2^12 erasure patterns are the most that an evaluation is asked for


def _parse_stage(text: str) -> tuple[int, int]:
    first, _, last = text.partition("-")
    return int(first), int(last or first)


GRID = tuple_of(INTEGER, "x", "rows x columns as 2x2")
GRIDS = tuple_of(GRID, ",", "grids as 2x1,1x2")
STAGES = tuple_of(
    Form(_parse_stage, lambda stage: f"{stage[0]}-{stage[1]}", "1-2"),
    ",",
    "blocks as 1-2,3-4",
)
VIEWS_WORDING = f"views, each {WORDING} separated by commas,"
VIEWS = tuple_of(Form(str, str, "a view"), ",", VIEWS_WORDING)
CODE = Form(str, name_of, "the name of a code")


def _are_views(texts: object) -> bool:
    return isinstance(texts, tuple) and all(map(is_view, texts))


def _ascending(stages: tuple[tuple[int, int], ...]) -> bool:
    bounds = [0, *(block for stage in stages for block in stage)]
    return (
        len(bounds) > 1
        and all(len(stage) == 2 and stage[0] <= stage[1] for stage in stages)
        and all(a < b for a, b in zip(bounds[::2], bounds[1::2], strict=False))
    )


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


@dataclasses.dataclass(frozen=True)
class ViewSplit:
    """Views of one image, which the whole convolutional part computes in one round.

    Its fields are settings of `CodeConfig`.

    Raises:
      ValueError: a grid has not k crops, or there are not k views, or r parity views.
    """

    k: int
    r: int
    grid: Grid | None
    halo: int
    view_size: Grid | None
    views: tuple[str, ...] | None
    parity_views: tuple[str, ...] | None

    def __post_init__(self) -> None:
        k, r = self.k, self.r
        fits = self.grid is None or math.prod(self.grid) == k
        require("grid", self.grid, fits, f"rows x columns with a product of k={k}")
        if self.views is not None:
            require("views", self.views, len(self.views) == k, f"k={k} views")
            for name, default in (("grid", None), ("halo", 0)):
                value = getattr(self, name)
                require(name, value, value == default, f"{default} with views")
        given, named = self.parity_views, len(NAMES)
        fits = len(given) == r if given is not None else r <= named
        wording = f"r={r} views" + f", to be named for r > {named}" * (r > named)
        require("parity_views", given, fits, wording)

    @property
    def parity(self) -> tuple[str, ...]:
        """Names of the parity views."""
        return NAMES[: self.r] if self.parity_views is None else self.parity_views

    @property
    def crops(self) -> Grid:
        """Rows and columns of crops; if no grid is given, as many of both as k allows,
        or more columns."""
        rows = max(x for x in range(1, math.isqrt(self.k) + 1) if self.k % x == 0)
        return self.grid or (rows, self.k // rows)


Splitting = ImageSplit | GroupSplit | ConvolutionSplit | ViewSplit

SPLITS: dict[str, type[Splitting]] = {
    "image": ImageSplit,
    "group": GroupSplit,
    "convolution": ConvolutionSplit,
    "views": ViewSplit,
}


@dataclasses.dataclass(frozen=True)
class CodeConfig(LearnedConfig):
    """Settings of a code and of what it encodes; their help texts describe them.

    Raises:
      ValueError: a setting is out of range, or does not fit the others.
    """

    k: int = setting(
        2,
        "data pieces",
        Accepted(is_integer, f"2..{MAX_N - 1}, or 1 for a code of copies,"),
    )
    r: int = setting(
        1, "parity pieces", Accepted(is_integer, f"1..{MAX_N - 1}, k + r <= {MAX_N},")
    )
    grid: tuple[int, int] | None = setting(
        None,
        "rows x columns of pieces, as 2x2; k x 1 if not given",
        Accepted(
            lambda grid: len(grid) == 2 and min(grid) >= 1,
            "rows x columns with a product of k",
        ),
        GRID,
    )
    stage_grids: tuple[tuple[int, int], ...] | None = setting(
        None,
        "a grid for each coded stage, as 2x1,1x2; that of all stages if not given",
        Accepted(
            lambda grids: all(len(grid) == 2 and min(grid) >= 1 for grid in grids),
            "a rows x columns with a product of k for each stage",
        ),
        GRIDS,
    )
    halo: int = setting(
        0,
        "pixels of a stage's input that a piece has at each side beyond those that its "
        "share depends on; or a view beyond its own part of the image",
        integers(0),
    )
    view_size: tuple[int, int] | None = setting(
        None,
        "with split=views: rows x columns of a view, as 64x64; those of the crops of "
        "grid and halo, or of the smallest of views, if not given",
        Accepted(
            lambda size: len(size) == 2 and min(size) >= 1, "rows x columns from 1 on"
        ),
        GRID,
    )
    views: tuple[str, ...] | None = setting(
        None,
        "with split=views: k parts of an image, larger ones made smaller; the crops of "
        "grid and halo if not given",
        Accepted(_are_views, VIEWS_WORDING),
        VIEWS,
    )
    parity_views: tuple[str, ...] | None = setting(
        None,
        "with split=views: r more; the first r of whole,centre,mirrored if not given",
        Accepted(_are_views, VIEWS_WORDING),
        VIEWS,
    )
    stages: tuple[tuple[int, int], ...] | None = setting(
        None,
        "coded stages by their first and last block, from 1 on, as 1-2,3-4; blocks in "
        "none are computed whole; one stage of all blocks if not given",
        Accepted(_ascending, "ascending first-last blocks from 1 on"),
        STAGES,
    )
    split: str = setting(
        "image",
        "pieces of one image; or k images coded together by the whole network (group); "
        "or pieces of the input of every convolution of the coded stages, each one "
        "coded by itself (convolution), for codes without a training; or crops and "
        "smaller versions of one image, which the whole convolutional part computes in "
        "one round (views), and nothing of it is exact",
        one_of(SPLITS),
    )
    least_spared: float = setting(
        0.0,
        "with split=convolution: a convolution is sent to the devices if with k pieces "
        "each device is spared at least this part of the operations of its "
        "stage's convolutions, else the client computes it",
        Accepted(lambda x: 0 <= x < 1, "a number from 0 on, below 1"),
    )
    code: AnyCode = setting(
        LEARNED,
        "the erasure code",
        Accepted(is_code, lambda: f"one of {list(CODES)}"),
        CODE,
    )
    tail: str = setting(
        "frozen",
        "what follows the last coded stage, where a data result was lost: the base "
        "model's own; or a second copy, trained with the code on reconstructed "
        "features (tuned)",
        one_of(TAILS),
    )
    parity_moves: bool = setting(
        False,
        "whether devices whose results were lost in a stage compute the parity pieces "
        "of the next one, so that who stays away loses a data piece once",
    )
    precision: str = setting(
        "float32",
        "of encoder, F_Conv and decoder; what is trained, the head and the losses are "
        "float32",
        one_of(PRECISIONS),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        fewest = entry_of(self.code).fewest_pieces
        require("k", self.k, fewest <= self.k < MAX_N, f"{fewest}..{MAX_N - 1}")
        most = MAX_N - self.k
        require("r", self.r, 1 <= self.r <= most, f"1..{most} with k={self.k}")
        splitting_of(self)
        # Beside a parity model with montages, learned codes have sums.
        pieces, accepted = self.parity_pieces, f"sums or smaller with code={LEARNED}"
        fits = pieces != "montage" or self.code != LEARNED
        require("parity_pieces", pieces, fits, accepted)

    @property
    def splitting(self) -> Splitting:
        """The way to split, a record of the settings that belong to it."""
        return splitting_of(self)

    @property
    def n(self) -> int:
        """Returns the number of results, data and parity."""
        return self.k + self.r


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
        if name not in (*names[record], "k", "r"):
            value, default = getattr(settings, name), getattr(type(settings), name)
            shown = "none" if default is None else default
            accepted = f"{shown} with split={settings.split}"
            require(name, value, value == default, accepted)
    return record(**{name: getattr(settings, name) for name in names[record]})
