"""The table of networks whose stages were planned, verified and timed."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from coded_jax.inference.costs import Cost
from coded_jax.report import table
from coded_jax.report.formatting import size_text
from coded_jax.report.table import Columns
from tables import sections, stored
from tables.sections import Section
from tables.stored import Content

GOALS = {"least_coded": "coded", "most_device": "device"}
IN_HEADS = 2
"""Operations that cannot be split of networks that have them in their heads alone."""
TEXT = (
    "*Coded*: part of the network's operations in coded stages. *Device*, *client*: "
    "operations of the busiest device, and of the client with a linear code that "
    "decodes in every round, each over those of the whole network. *kB*: float32, to "
    "and from a device. *Largest error*: of the merged features of a stage, over the "
    "largest feature. *Cut and merge*: their time over that of the pieces, one after "
    "the other. *Goal*: at most 6 rounds; with k=2 at least 75 % coded, device and "
    "client at most 0.65 each, with k=4 85 % and 0.40."
)


def name_of(content: Content) -> str:
    """Returns network and image size of a stored result."""
    name = content["model"].removeprefix("keras:").removesuffix(":shapes")
    return f"{name.removeprefix('networks.')}, {size_text(content['image_shape'][:2])}"


def grids_text(content: Content) -> str:
    """Returns grids in their order, equal ones together: `3 of 2x1, 2 of 1x2`."""
    groups = itertools.groupby(map(size_text, content["grids"]))
    return ", ".join(f"{len([*group])} of {grid}" for grid, group in groups)


def client_of(content: Content) -> float:
    """Returns the client's operations over those of the whole network."""
    cost = Cost.from_json(content["cost"])
    return cost.client_total / cost.whole_flops


def kilobytes(content: Content) -> str:
    """Returns what is sent to and from a device."""
    cost = Cost.from_json(content["cost"])
    return f"{(cost.bytes_in + cost.bytes_out) / 1e3:.0f}"


def moved_text(content: Content) -> str:
    """Returns the time to cut and merge, over that of the pieces."""
    seconds = content["timing"]["seconds"]
    return f"{100 * (seconds['split'] + seconds['merge']) / seconds['pieces']:.1f} %"


def goal_text(content: Content) -> str:
    """Returns whether all limits are met, else which not, and the obstacle."""
    missed = [GOALS[name] for name, met in content["met"].items() if not met]
    if client_of(content) > content["limits"]["most_device"]:
        missed.append("client")
    if not missed:
        return "met"
    obstacle, obstacles = "receptive fields of the last blocks", content["obstacles"]
    if missed != ["device"] and sum(count for _, count in obstacles) > IN_HEADS:
        reason, count = obstacles[0]
        obstacle = f"{count} x {reason}"
    return f"**missed** ({', '.join(missed)}): {obstacle}"


COLUMNS: Columns = {
    "network, image": name_of,
    "k, r": lambda x: f"{x['k']}, {x['r']}",
    "rounds": lambda x: str(len(x["cost"]["rounds"])),
    "grids": grids_text,
    "coded": lambda x: f"{100 * x['coded']:.0f} %",
    "device": lambda x: f"{Cost.from_json(x['cost']).parts['piece']:.2f}",
    "client": lambda x: f"{client_of(x):.2f}",
    "kB of a device": kilobytes,
    "planned in": lambda x: f"{x['timing']['seconds']['plan']:.1f} s",
    "largest error": lambda x: f"{x['largest_error']:.1g}",
    "cut and merge": moved_text,
    "goal": goal_text,
}


def section() -> Section:
    """Returns a row for each network and size of the code."""
    contents = [*stored.read("stages").values()]
    origin = f"{stored.origin_text(contents)} Each by `bash experiments/stages.sh`."
    return sections.section(table.make(COLUMNS, contents), TEXT, origin)


SECTIONS: dict[str, Callable[[], Section]] = {"stages": section}
