"""The cost record of a code of a finished run."""

from __future__ import annotations

import functools
import json
from typing import Any

import jax

from coded_jax.checks import require
from coded_jax.inference.costs import Cost, cost_of
from coded_jax.runs.build import build_pipeline, rival_pipelines
from coded_jax.runs.config import Config


def read_cost(results: dict[str, Any], name: str) -> Cost:
    """Returns the cost of a code of a finished run, for one image.

    Runs that were made before costs were kept by rounds are counted anew, as all
    others are counted now: products with padding count, those with zeros do not.

    Args:
      results: the content of its `results.json`.
      name: `"code"`, or one of the run's baselines.

    Raises:
      ValueError: the run has no such code, or an older one has a network or a code that
        is not in a registry.
    """
    costs = results.get("costs", {})
    require("name", name, name in costs, f"one of {[*costs]} with costs in this run")
    if "rounds" in costs[name]:
        return Cost.from_json(costs[name])
    image, config = tuple(results["image_shape"]), json.dumps(results["config"])
    return _recounted(config, image, results["classes"])[name]


@functools.lru_cache(maxsize=256)
def _recounted(
    config_text: str, image: tuple[int, int, int], classes: int
) -> dict[str, Cost]:
    """Returns the costs of all codes of a run, by its settings as JSON."""
    config, statistics = Config.from_json(json.loads(config_text)), (0.5,) * image[-1]
    pipeline = build_pipeline(config, image, classes, statistics, statistics)
    init = lambda key: pipeline.base.init(key, image, classes)
    variables = jax.eval_shape(init, jax.random.key(0))
    rivals = rival_pipelines(config, pipeline, variables)
    return {
        name: cost_of(of_code, variables, image)
        for name, of_code in {"code": pipeline, **rivals}.items()
    }
