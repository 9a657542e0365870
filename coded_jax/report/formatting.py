"""Numbers, erasure patterns, blocks and runs as text."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from coded_jax.runs.reading import code_title


def percent(fraction: float) -> str:
    """Returns `0.98765` as `98.77`."""
    return f"{100 * fraction:.2f}"


def with_deviation(mean: float, deviation: float, digits: int = 2) -> str:
    """Returns `95.10 ± 0.20`, without the deviation where it is 0."""
    text = f"{mean:.{digits}f}"
    return f"{text} ± {deviation:.{digits}f}" if deviation else text


def mean_std(values: Sequence[float]) -> tuple[float, float]:
    """Returns mean and standard deviation (of `S - 1` degrees of freedom; 0 for one
    value)."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return statistics.fmean(values), deviation


def measure_text(summary: Mapping[str, float], measure: str) -> str:
    """Returns one measure in percent, with its standard deviation over seeds.

    Args:
      summary: fractions by measure; a deviation has the name `<measure>_std`.
      measure: `mean`, `worst`, `accuracy`, ...
    """
    deviation = summary.get(f"{measure}_std", 0.0)
    return with_deviation(100 * summary[measure], 100 * deviation)


def size_text(shape: Sequence[int]) -> str:
    """Returns `(20, 28, 1)` as `20x28x1`."""
    return "x".join(map(str, shape))


def network_text(name: str, width: float) -> str:
    """Returns a network and its width as `vgg16 x 0.5`."""
    return f"{name} x {width:g}"


def number_text(number: float) -> str:
    """Returns a number with three digits, or all that stand before the point."""
    return f"{number:.3g}" if abs(number) < 999.5 else f"{number:.0f}"


def blocks_text(blocks: Sequence[int]) -> str:
    """Returns the first and last block of a stage as `1-2`, or `3` if they are one."""
    return "-".join(map(str, sorted(set(blocks))))


def stages_text(stages: Sequence[Sequence[int]]) -> str:
    """Returns the blocks of a chain of stages as `1-2, 3-4`."""
    return ", ".join(map(blocks_text, stages))


def pattern_text(lost: Sequence[int], k: int) -> str:
    """Returns an erasure pattern with its pieces named: `data 0, parity 0`.

    Args:
      lost: the lost results, from 0 to n - 1.
      k: data pieces.
    """
    names = [f"data {i}" if i < k else f"parity {i - k}" for i in lost]
    return ", ".join(names) or "none"


def run_text(results: Mapping[str, Any]) -> str:
    """Returns data set, network, sizes and code of a run in a line.

    Args:
      results: the content of `results.json`.
    """
    split, network = results["split"], results["config"]["base_model"]
    sizes = f"k={split['k']} r={split['r']}"
    code = code_title(results["config"])
    return f"{results['dataset']}, {network}, {sizes}, {code}"
