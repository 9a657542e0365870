"""Empty figures to draw on; they need the `plot` extra."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(width: float, height: float, layout: str = "constrained") -> Figure:
    """Makes an empty figure.

    Args:
      width, height: in inches.
      layout: matplotlib's name of how its parts are arranged.

    Raises:
      ImportError: matplotlib is missing; the `plot` extra brings it.
    """
    try:
        # Its start-up notes are of no use to the reader of a run.
        logging.getLogger("matplotlib").setLevel(logging.WARNING)
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plots need: pip install 'coded_jax[plot]'") from error
    return Figure(figsize=(width, height), layout=layout)  # type: ignore
