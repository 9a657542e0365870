"""Tables of what checks find among results, and ApproxIFER's error locator beside."""

from __future__ import annotations

from typing import Any

from coded_jax.byzantine.faults import STANDARD
from tables import markdown, stored

TABLE = "checks"
COLUMNS = (
    "network, code",
    "k, r",
    "wrong result",
    "found",
    "in the worst result",
    "named",
    "named wrongly",
    "believed",
    "left out",
    "never there",
    "unnoticed",
)
LOCATOR = (
    "network",
    "images together, workers",
    "wrong result",
    "named",
    "believed",
    "left out",
    "never there",
    "always left out",
    "base",
    "whole images of work for each",
)
LEAST_FOUND, MOST_FALSE = 0.99, 0.001


def section() -> str:
    """Returns rows for each kind of wrong result, false alarms, targets and times."""
    contents = stored.contents(TABLE)
    rows = [row for content in contents for row in rows_of(content)]
    text = (
        "Percent of all test images, with each of the n results wrong in turn. "
        "*Named*, *named wrongly*: of those that were found. *Believed*, *left out*, "
        "*never there*: correct answers with the wrong result, without the named one "
        "(of images with a name), and with right results only. *Unnoticed*: images "
        "without an alarm whose class the wrong result has changed."
    )
    alarms = markdown.table(
        [
            "network, code",
            "k, r",
            "results lost",
            "false alarms, mean",
            "worst",
            "target",
        ],
        [row for content in contents for row in false_alarms(content)],
    )
    times = markdown.table(
        [
            "network, code",
            "k, r",
            "images",
            "`inspect`",
            "`name_culprit`",
            "decoder",
            "merge",
        ],
        [row for content in contents for row in times_of(content)],
    )
    timed = (
        "Milliseconds, medians of 200 calls: the check of a request, what an alarm "
        "adds, the decoder of one lost data result, and where nothing is lost."
    )
    calibrated = "\n".join(
        f"- {name_of(content)}, k={content['run']['config']['k']}: calibrated on "
        f"{content['check']['images']:,} validation images (after "
        f"{content['check']['training_images']:,} training images) in "
        f"{content['timing']['seconds']['calibrate']:.0f} s, tried on "
        f"{content['images']:,} test images, seed {content['seed']}: "
        f"`{content['command']}`"
        for content in contents
    )
    parts = [markdown.table(COLUMNS, rows), text, alarms, times, timed, calibrated]
    return "\n\n".join([*parts, stored.origin_text(contents)])


def name_of(content: dict[str, Any]) -> str:
    """Returns data set, network and code."""
    config = content["run"]["config"]
    width = "" if config["base_width"] == 1 else f" x {config['base_width']:g}"
    code = f"{config['encoder']} / {config['decoder']}"
    return f"{content['run']['dataset']}, {config['base_model']}{width}, {code}"


def sizes_of(content: dict[str, Any]) -> str:
    """Returns k and r."""
    return f"{content['run']['config']['k']}, {content['run']['config']['r']}"


def rows_of(content: dict[str, Any]) -> list[list[str]]:
    """Returns a row for each kind of fault."""
    rows = []
    for kind, own in content["faults"].items():
        is_met = own["found"] >= LEAST_FOUND
        met = (" met" if is_met else " **missed**") if kind in STANDARD else ""
        shares = (own["named"], own["misnamed"], own["believed"], own["left_out"])
        rows.append(
            [
                name_of(content),
                sizes_of(content),
                kind,
                f"{percent(own['found'])}{met}",
                percent(own["worst"]),
                *map(percent, shares),
                percent(content["right"]),
                percent(own["unnoticed"]),
            ]
        )
    return rows


def false_alarms(content: dict[str, Any]) -> list[list[str]]:
    """Returns a row for each number of lost results."""
    return [
        [
            name_of(content),
            sizes_of(content),
            lost,
            percent(own["mean"]),
            percent(own["worst"]),
            "met" if own["worst"] <= MOST_FALSE else "**missed**",
        ]
        for lost, own in content["false_alarms"].items()
    ]


def times_of(content: dict[str, Any]) -> list[list[str]]:
    """Returns a row for each batch size."""
    names = ("inspect", "name", "decode", "merge")
    return [
        [
            name_of(content),
            sizes_of(content),
            size,
            *(f"{own[name]:.2f}" for name in names),
        ]
        for size, own in content["milliseconds"].items()
    ]


def locator_section() -> str:
    """Returns rows of ApproxIFER's locator on the same base models."""
    contents = [x for x in stored.contents(TABLE) if x["locator"]]
    rows = [row for content in contents for row in locator_rows(content)]
    return "\n\n".join([markdown.table(LOCATOR, rows), stored.origin_text(contents)])


def locator_rows(content: dict[str, Any]) -> list[list[str]]:
    """Returns a row for each kind of fault and number of images coded together."""
    name = name_of(content).rpartition(", ")[0]
    return [
        [
            name,
            f"{own['k']}, {own['workers']}",
            kind,
            *map(percent, (of_kind["named"], of_kind["believed"], of_kind["left_out"])),
            *map(percent, (own["right"], own["always_located"], own["base"])),
            f"{own['workers'] / own['k']:.2f}",
        ]
        for own in content["locator"].values()
        for kind, of_kind in own["faults"].items()
    ]


def percent(value: float | None) -> str:
    """Returns a fraction in percent, `-` for None."""
    return "-" if value is None else f"{100 * value:.2f}"
