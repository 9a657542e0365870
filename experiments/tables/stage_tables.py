"""The table of networks whose stages were planned, verified and timed."""

from __future__ import annotations

from typing import Any

from coded_jax.inference.costs import Cost
from coded_jax.report.formatting import size_text
from tables import markdown, stored

TABLE = "stages"
COLUMNS = (
    "network, image",
    "k, r",
    "rounds",
    "grids",
    "coded",
    "device",
    "client",
    "kB of a device",
    "planned in",
    "largest error",
    "cut and merge",
    "goal",
)
GOALS = {"least_coded": "coded", "most_device": "device"}
IN_HEADS = 2
"""Operations that cannot be split of networks that have them in their heads alone."""


def section() -> str:
    """Returns a row for each network and size of the code, and how they were made."""
    contents = stored.contents(TABLE)
    rows = [row_of(content) for content in contents]
    text = (
        "*Coded*: part of the network's operations in coded stages. *Device*, "
        "*client*: operations of the busiest device, and of the client with a linear "
        "code that decodes in every round, each over those of the whole network. *kB*: "
        "float32, to and from a device. *Largest error*: of the merged features of a "
        "stage, over the largest feature. *Cut and merge*: their time over that of the "
        "pieces, one after the other. *Goal*: at most 6 rounds; with k=2 at least 75 % "
        "coded, device and client at most 0.65 each, with k=4 85 % and 0.40. A limit "
        "that no chain meets is left out, and what is in the way stands there."
    )
    command = "Each by `bash experiments/stages.sh`."
    origin = f"{stored.origin_text(contents)} {command}"
    return "\n\n".join([markdown.table(COLUMNS, rows), text, origin])


def row_of(content: dict[str, Any]) -> list[str]:
    """Returns the row of a stored result."""
    cost, seconds = Cost.from_json(content["cost"]), content["timing"]["seconds"]
    moved = (seconds["split"] + seconds["merge"]) / seconds["pieces"]
    client = cost.client_total / cost.whole_flops
    name = content["model"].removeprefix("keras:").removesuffix(":shapes")
    name = name.removeprefix("networks.")
    return [
        f"{name}, {size_text(content['image_shape'][:2])}",
        f"{content['k']}, {content['r']}",
        str(len(cost.rounds)),
        grids_text(content["grids"]),
        f"{100 * content['coded']:.0f} %",
        f"{cost.device_flops / cost.whole_flops:.2f}",
        f"{client:.2f}",
        f"{(cost.bytes_in + cost.bytes_out) / 1e3:.0f}",
        f"{seconds['plan']:.1f} s",
        f"{content['largest_error']:.0e}" if content["largest_error"] else "0",
        f"{100 * moved:.1f} %",
        goal_text(content, client),
    ]


def grids_text(grids: list[list[int]]) -> str:
    """Returns grids in their order, equal ones together: `3 of 2x1, 2 of 1x2`."""
    found: list[tuple[str, int]] = []
    for grid in map(size_text, grids):
        if found and found[-1][0] == grid:
            found[-1] = (grid, found[-1][1] + 1)
        else:
            found.append((grid, 1))
    return ", ".join(f"{count} of {grid}" for grid, count in found)


def goal_text(content: dict[str, Any], client: float) -> str:
    """Returns whether all limits are met, else which not, and what is in the way."""
    missed = [GOALS[name] for name, met in content["met"].items() if not met]
    missed += ["client"] if client > content["limits"]["most_device"] else []
    if not missed:
        return "met"
    (reason, count), *others = [*content["obstacles"], ("", 0)]
    if missed == ["device"] or count + sum(n for _, n in others) <= IN_HEADS:
        return f"**missed** ({', '.join(missed)}): receptive fields of the last blocks"
    return f"**missed** ({', '.join(missed)}): {count} x {reason}"
