"""The cost record of a code of a finished run."""

from __future__ import annotations

from typing import Any

from coded_jax.checks import require
from coded_jax.inference.costs import Cost


def read_cost(results: dict[str, Any], name: str) -> Cost:
    """Returns the cost of a code of a finished run, for one image.

    Args:
      results: the content of its `results.json`.
      name: `"code"`, or one of the run's baselines.

    Raises:
      ValueError: the run has no such code, or a former version has counted its costs.
    """
    costs = results.get("costs", {})
    require("name", name, name in costs, f"one of {[*costs]} with costs in this run")
    return Cost.from_json(costs[name])
