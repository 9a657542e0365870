"""The cost record of a code of a finished run."""

from __future__ import annotations

import functools
import json
from typing import Any

import jax

from coded_jax.checks import require
from coded_jax.codes import CODES
from coded_jax.inference.costs import Cost, cost_of
from coded_jax.models import BASE_MODELS
from coded_jax.runs.build import build_pipeline, rival_pipelines
from coded_jax.runs.config import Config


def read_cost(results: dict[str, Any], name: str) -> Cost:
    """Returns the cost of a code of a finished run, for one image.

    It is counted anew wherever network and code are in the registries, so that all are
    counted alike, whenever they were made; else it is what the run has kept.

    Args:
      results: the content of its `results.json`.
      name: `"code"`, or one of the run's baselines.

    Raises:
      ValueError: the run has no such code, or neither can be counted nor has kept it.
    """
    costs = results.get("costs", {})
    require("name", name, name in costs, f"one of {[*costs]} with costs in this run")
    config = results["config"]
    codes = (config.get("code"), *config.get("baselines", ()))
    known = config.get("base_model") in BASE_MODELS and all(x in CODES for x in codes)
    if not known or "image_shape" not in results:
        return Cost.from_json(costs[name])
    image = tuple(results["image_shape"])
    return _recounted(json.dumps(config), image, results["classes"])[name]


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
