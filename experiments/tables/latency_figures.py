"""Distributions of latencies as figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from coded_jax.latency import simulation
from coded_jax.report import canvas
from coded_jax.studies.latency_parts import part_name
from tables.latency_tables import client_text, clients, measured

STEPS = 400  # of a curve


def draw_study(path: Path, content: dict[str, Any]) -> None:
    """Draws shares of requests that take longer, without delays and with them; dashed,
    what is simulated.

    Args:
      path: of the picture.
      content: of `latency.json`.

    Raises:
      ImportError: matplotlib is missing.
    """
    parts, tried = content["parts"], clients(content)
    figure = canvas.new_figure(12, 4.5 * len(tried))
    axes_of = figure.subplots(len(tried), 2, sharey=True, squeeze=False)
    for client, (left, right) in zip(tried, axes_of, strict=True):
        for i, name in enumerate(measured(content, client)):
            calm, delayed, simulated = (
                parts[part_name(f"{name}, {kind}", client)]
                for kind in ("calm", "delayed", "simulated")
            )
            colour = f"C{i}"
            _curve(left, calm["seconds"], color=colour, label=name)
            _curve(right, delayed["seconds"], color=colour, label=name)
            _curve(right, simulated, color=colour, linestyle="--")
        whose = f"client: {client_text(client)}"
        share = "share of requests that take longer"
        left.set(title=f"without delays; {whose}", ylabel=share)
        right.set(title=f"with delays; {whose}; dashed: simulated")
        for axes in (left, right):
            axes.set(xlabel="milliseconds", xscale="log", yscale="log")
            axes.grid(alpha=0.3)
        right.legend()
    canvas.save(figure, path, 90)


def draw_codes(
    path: Path, seconds: dict[str, np.ndarray], target: float | None
) -> None:
    """Draws shares of requests that take longer, of several codes.

    Args:
      path: of the picture.
      seconds: of simulated requests, by code.
      target: the latency target in seconds, as a line; None for no line.

    Raises:
      ImportError: matplotlib is missing.
    """
    figure = canvas.new_figure(9, 5)
    axes = figure.subplots()
    for name, latencies in seconds.items():
        _curve(axes, latencies, label=name)
    if target is not None:
        axes.axvline(1e3 * target, color="k", lw=0.8)
    axes.set(xlabel="milliseconds", ylabel="share of requests that take longer")
    axes.set(xscale="log", yscale="log")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)
    figure.savefig(path, dpi=100)


def _curve(axes, seconds, **style: Any) -> None:
    x, share = simulation.cdf(np.asarray(seconds, np.float32), STEPS)
    axes.step(1e3 * x, 1 - share, where="post", **style)
