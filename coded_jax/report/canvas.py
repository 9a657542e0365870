"""Empty figures to draw on; they need the `plot` extra."""

from __future__ import annotations

import io
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(
    width: float, height: float, layout: Literal["constrained", "tight"] = "constrained"
) -> Figure:
    """Makes an empty figure.

    Args:
      width, height: in inches.
      layout: how its parts are arranged.

    Raises:
      ImportError: matplotlib is missing; the `plot` extra brings it.
    """
    try:
        # Its start-up notes are of no use to the reader of a run.
        logging.getLogger("matplotlib").setLevel(logging.WARNING)
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plots need: pip install 'coded_jax[plot]'") from error
    return Figure(figsize=(width, height), layout=layout)


def save(figure: Figure, path: Path, dpi: int) -> None:
    """Writes a picture of 64 colours, which takes a third of the bytes of all. They are
    chosen to be near every colour that is there, also those of a few markers.

    Args:
      figure: of lines and areas of few colours.
      path: of the PNG file.
      dpi: pixels per inch.
    """
    from PIL import Image  # matplotlib needs it, too

    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=dpi)
    coloured = Image.open(picture).convert("RGB")
    few = coloured.quantize(64, method=Image.Quantize.MAXCOVERAGE)
    few.save(path, optimize=True)
