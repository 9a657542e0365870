"""What `results.json` says of a code: its name, its work, its patterns."""

from __future__ import annotations

from typing import Any

from coded_jax import codes
from coded_jax.codes.networks import DECODERS, ENCODERS

ROUNDING = 5e-4
"""By which accuracies on two machines may differ: sums in another order."""


def work_of(costs: dict[str, float]) -> dict[str, float]:
    """Fractions of the whole `F_Conv` that a device does, from flops as in
    `results.json`: its parts `encode`, `piece`, `decode` and `uncoded`."""
    parts = ("encode", "piece", "decode", "uncoded")
    return {part: costs[part] / costs["whole"] for part in parts}


def patterns_of(results: dict[str, Any], code: str) -> list[dict[str, Any]] | None:
    """Every pattern's outcome with a code, as in `results.json`; None if the run has no
    such code, or has kept the patterns of another one only."""
    if results["config"]["code"] == code:
        return results["patterns"]
    return results.get("patterns_of_baselines", {}).get(code)


def code_name(config: dict[str, Any], code: str) -> str:
    """Returns a code's name in tables, with its networks where it has some.

    Args:
      config: as in `results.json`.
      code: its name there.

    Returns:
      A text such as `mds` or `paper mlp 64 / linear`.
    """

    def network(part: str, networks: dict[str, Any]) -> str:
        name, width = config[part], config[f"{part}_width"]
        shown = width and (name not in networks or networks[name].has_width)
        return f"{name} {width}" if shown else name

    return codes.entry_of(code).label.format(
        code=code,
        recipe=config["recipe"],
        encoder=network("encoder", ENCODERS),
        decoder=network("decoder", DECODERS),
    )


def code_title(config: dict[str, Any]) -> str:
    """Returns the name of a run's code in headings, with recipe and networks where it
    has some; `config` as in `results.json`."""
    names = {name: config[name] for name in ("code", "recipe", "encoder", "decoder")}
    return codes.entry_of(config["code"]).title.format(**names)
