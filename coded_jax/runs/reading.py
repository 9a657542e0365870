"""What `results.json` says of a code: its name, its work, its patterns."""

from __future__ import annotations

from typing import Any

from coded_jax.codes import LEARNED, NO_PARITY
from coded_jax.codes.learned import LINEAR

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
    """A code with its networks, where it has some: `paper mlp/mlp`."""

    def network(part: str) -> str:
        name, width = config[part], config[f"{part}_width"]
        return f"{name} {width}" if width and name != LINEAR else name

    if code == LEARNED:
        return f"{config['recipe']} {network('encoder')} / {network('decoder')}"
    return f"{code} {network('decoder')}" if code == NO_PARITY else code
