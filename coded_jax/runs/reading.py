"""Facts about a code that `results.json` holds: its name, work and patterns."""

from __future__ import annotations

from typing import Any

from coded_jax import codes
from coded_jax.checks import require
from coded_jax.codes.networks import DECODERS, ENCODERS
from coded_jax.inference.costs import Cost

ROUNDING = 5e-4
"""Largest difference of an accuracy between two machines, whose sums have another
order."""


def evaluated_part(results: dict[str, Any]) -> str:
    """Returns the part of the data set that a run was evaluated on."""
    return results["config"].get("evaluated", "test")


def base_accuracy(results: dict[str, Any]) -> float:
    """Returns the base model's accuracy on the part that was evaluated."""
    return results["base"][f"{evaluated_part(results)}_accuracy"]


def patterns_of(results: dict[str, Any], code: str) -> list[dict[str, Any]] | None:
    """Returns the outcome of every erasure pattern with a code, as in `results.json`;
    None if the run has no such code, or kept no patterns of it."""
    if results["config"]["code"] == code:
        return results["patterns"]
    return results.get("patterns_of_baselines", {}).get(code)


def code_name(config: dict[str, Any], code: str) -> str:
    """Returns a code's name in tables, with its networks where it has some, such as
    `mds` or `paper mlp 64 / linear`; config and name as in `results.json`."""

    def network(part: str, networks: dict[str, Any]) -> str:
        name, width = config[part], config[f"{part}_width"]
        shown = width and (name not in networks or networks[name].has_width)
        return f"{name} {width}" if shown else name

    return codes.entry_of(code).label.format(
        code=code,
        recipe=config["recipe"],
        encoder=_with_smaller(config, network("encoder", ENCODERS)),
        decoder=network("decoder", DECODERS),
    )


def code_title(config: dict[str, Any]) -> str:
    """Returns the name of a run's code in headings, with recipe and networks where it
    has some; `config` as in `results.json`."""
    names = {name: config[name] for name in ("code", "recipe", "encoder", "decoder")}
    names["encoder"] = _with_smaller(config, names["encoder"])
    return codes.entry_of(config["code"]).title.format(**names)


def _with_smaller(config: dict[str, Any], encoder: str) -> str:
    """Returns an encoder's name, and that smaller images are its linear part."""
    if config.get("parity_pieces") != "smaller":
        return encoder
    return "smaller" if encoder == "linear" else f"smaller + {encoder}"


def read_cost(results: dict[str, Any], name: str) -> Cost:
    """Returns the cost for one image of a run's code: of `"code"`, or of a baseline.

    Raises:
      ValueError: the run has no such code, or a former version has counted its costs.
    """
    costs = {x: y for x, y in results.get("costs", {}).items() if "rounds" in y}
    require("name", name, name in costs, f"one of {[*costs]} with costs in this run")
    return Cost.from_json(costs[name])
