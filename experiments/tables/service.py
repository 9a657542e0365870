"""Tables of a service: its load, faults, a soak, and checks of wrong results."""

from __future__ import annotations

import collections
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from coded_jax.byzantine.faults import STANDARD
from coded_jax.report import table
from coded_jax.report.table import Column, Table
from tables import stored
from tables.sections import Section

Content = dict[str, Any]
LEAST_FOUND, MOST_FALSE = 0.99, 0.001  # targets of checks


def percent(value: float | None) -> str:
    """Returns a fraction in percent, `-` for None."""
    return "-" if value is None else f"{100 * value:.2f}"


def milliseconds(seconds: float | None, none: str = "") -> str:
    """Returns seconds as milliseconds without digits behind the point."""
    return none if seconds is None else f"{1e3 * seconds:.0f}"


def command_text(contents: Sequence[Content]) -> str:
    """Returns the commands and the origin of stored results, in one line."""
    commands = ", ".join(f"`{content['command']}`" for content in contents)
    return f"{commands}. {stored.origin_text(contents)}"


LOAD = (
    Column("together", lambda point: str(point["together"])),
    Column("sent", lambda point: f"{point['rate']:g}"),
    Column("answered", lambda point: f"{point['per_second']:.0f}"),
    Column("of a batch", lambda point: f"{point['images_per_batch']:.1f}"),
    Column("p50 ms", lambda point: milliseconds(point["p50"])),
    Column("p99 ms", lambda point: milliseconds(point["p99"])),
    Column("slowest ms", lambda point: milliseconds(point["slowest"])),
    Column("refused", lambda p: f"{100 * p['lost'] / p['requests']:.1f} %"),
    Column("wrong", lambda point: str(point["wrong"])),
)
"""Columns of a rate: images of a batch, at most; requests per second sent and answered;
images of a batch, on average; latencies."""


def load_section() -> Section:
    """Returns the stored load curve."""
    contents = [*stored.read("load").values()]
    made = table.make(LOAD, contents[0]["points"])
    return Section(f"{table.to_markdown(made)}\n\n{command_text(contents)}")


def done_in(row: Content) -> list[Content]:
    """Returns the disturbances of a row that could be done."""
    return [done for done in row["done"] if not done.get("error")]


def seconds_text(row: Content, key: str) -> str:
    """Returns median and longest of the seconds after a fault until `key`."""
    told = [
        done for done in done_in(row) if (key, done["kind"]) != ("noticed", "reload")
    ]
    values = [done[key] for done in told]
    known = sorted(value for value in values if value is not None)
    if not known:
        return "never" if values else ""
    median, never = known[len(known) // 2], len(values) - len(known)
    text = f"{median:.2f}, {known[-1]:.2f}" if known[1:] else f"{median:.2f}"
    return f"{text}; {never} never" if never else text


def fault_verdict(row: Content) -> str:
    """Returns whether a row met its target; empty if it has none.

    Nothing lost or wrong, and with spares: noticed in 0.2 s, the place taken 0.5 s
    later, back after 6 s, p99 under 3 times the calm one. Of the machinery: noticed in
    5 s, all places taken after 30.
    """
    kinds, never = {done["kind"] for done in row["done"]}, float("inf")
    longest = lambda key: max(
        (never if done[key] is None else done[key] for done in done_in(row)),
        default=never,
    )
    if kinds == {"kill worker"} and row["settings"].get("spares", 0):
        limits = {"noticed": 0.2, "answering": 0.7, "recovered": 6.0}
        slow = row["disturbed"]["p99"] >= 3 * row["calm"]["p99"]
    elif kinds and not kinds & {"kill worker", "freeze worker", "reload"}:
        limits, slow = {"noticed": 5.0, "answering": 30.0}, False
    else:
        return ""
    missed = [key for key, limit in limits.items() if longest(key) > limit]
    missed += ["p99"] * slow + ["lost"] * (row["disturbed"]["lost"] > 0)
    missed += ["wrong"] * (row["wrong"] > 0)
    return f"**missed** ({', '.join(missed)})" if missed else "met"


FAULTS = (
    Column("what is done", lambda row: row["name"]),
    Column("times", lambda row: str(len(done_in(row))) if row["done"] else ""),
    Column("sent", lambda row: str(row["disturbed"]["requests"])),
    Column("lost", lambda row: str(row["disturbed"]["lost"])),
    Column("wrong", lambda row: str(row["wrong"])),
    Column("calm p99 ms", lambda row: milliseconds(row["calm"]["p99"], "none")),
    Column("p99 ms", lambda row: milliseconds(row["disturbed"]["p99"], "none")),
    Column("slowest ms", lambda row: milliseconds(row["disturbed"]["slowest"], "none")),
    Column("noticed s", lambda row: seconds_text(row, "noticed")),
    Column("place s", lambda row: seconds_text(row, "answering")),
    Column("back s", lambda row: seconds_text(row, "recovered")),
)


def faults_section() -> Section:
    """Returns the stored tables of faults as one, with targets."""
    contents = [*stored.read("faults").values()]
    rows = [row for content in contents for row in content["rows"]]
    made = table.make([*FAULTS, Column("target", fault_verdict)], rows)
    return Section(f"{table.to_markdown(made)}\n\n{command_text(contents)}")


def soak_lines(content: Content) -> list[str]:
    """Returns the events and the outcome of a soak, a line each.

    Args:
      content: of `soak.json`.
    """
    requests, start, end = content["requests"], content["start"], content["end"]
    failed = sum(bool(done.get("error")) for done in content["done"])
    kinds = collections.Counter(done["kind"] for done in done_in(content))
    done = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    growth = 100 * (end["memory"] / start["memory"] - 1)
    same = all(start[name] == end[name] for name in ("files", "threads"))
    target = "met" if growth < 2 and same else "missed"
    return [
        f"{content['minutes']:g} minutes; {done or 'nothing'} on purpose, "
        f"{failed} more could not be done",
        f"answered {requests['answered']}, of which late {requests['late']} (more than "
        f"{content['late']:g} s, the slowest {content['slowest']:.2f} s); lost "
        f"{requests['lost']}",
        f"checked {requests['checked']} of these, of which wrong "
        f"{requests['wrong_checked']}; of the others wrong "
        f"{requests['wrong'] - requests['wrong_checked']}: there were no more results "
        "in time than are needed, to check them by",
        f"memory {start['memory'] / 1e6:.0f} MB at the start, {end['memory'] / 1e6:.0f}"
        f" MB at the end ({growth:+.1f} %); files {start['files']} and {end['files']}; "
        f"threads {start['threads']} and {end['threads']}; target of under 2 % and as "
        f"many files and threads {target}",
        f"cluster started anew {content['summary']['cluster_restarts']} times; ended "
        f"with code {content['exit']}",
    ]


def soak_section() -> Section:
    """Returns the lines of the stored soak."""
    contents = [*stored.read("soak").values()]
    text = "\n".join(soak_lines(contents[0]))
    return Section(f"```text\n{text}\n```\n\n{command_text(contents)}")


class Fault(NamedTuple):
    """A kind of wrong result in a stored check: on our code, or by the locator."""

    content: Content
    kind: str
    found: Content
    group: Content = {}


def network_of(content: Content) -> str:
    """Returns data set and network of a check."""
    config = content["run"]["config"]
    width = "" if config["base_width"] == 1 else f" x {config['base_width']:g}"
    return f"{content['run']['dataset']}, {config['base_model']}{width}"


def code_of(content: Content) -> str:
    """Returns data set, network and code of a check."""
    config = content["run"]["config"]
    return f"{network_of(content)}, {config['encoder']} / {config['decoder']}"


def sizes_of(content: Content) -> str:
    """Returns k and r of a check."""
    return f"{content['run']['config']['k']}, {content['run']['config']['r']}"


def found_text(fault: Fault) -> str:
    """Returns the part that is found, and whether the target of its kind is met."""
    share = fault.found["found"]
    met = " met" if share >= LEAST_FOUND else " **missed**"
    return percent(share) + met * (fault.kind in STANDARD)


def found_columns(*names: tuple[str, str]) -> list[Column]:
    """Returns columns of fields of a fault, in percent."""
    return [
        Column(name, lambda x, key=key: percent(x.found[key])) for name, key in names
    ]


CHECKS = (
    Column("network, code", lambda x: code_of(x.content)),
    Column("k, r", lambda x: sizes_of(x.content)),
    Column("wrong result", lambda x: x.kind),
    Column("found", found_text),
    *found_columns(
        ("in the worst result", "worst"),
        ("named", "named"),
        ("named wrongly", "misnamed"),
        ("believed", "believed"),
        ("left out", "left_out"),
    ),
    Column("never there", lambda x: percent(x.content["right"])),
    *found_columns(("unnoticed", "unnoticed")),
)
LOCATOR = (
    Column("network", lambda x: network_of(x.content)),
    Column(
        "images together, workers", lambda x: f"{x.group['k']}, {x.group['workers']}"
    ),
    Column("wrong result", lambda x: x.kind),
    *found_columns(
        ("named", "named"), ("believed", "believed"), ("left out", "left_out")
    ),
    Column("never there", lambda x: percent(x.group["right"])),
    Column("always left out", lambda x: percent(x.group["always_located"])),
    Column("base", lambda x: percent(x.group["base"])),
    Column(
        "whole images of work for each",
        lambda x: f"{x.group['workers'] / x.group['k']:.2f}",
    ),
)


def false_alarms(contents: Sequence[Content]) -> Table:
    """Returns a row for each number of lost results, with its target."""
    headers = ["network, code", "k, r", "results lost", "false alarms, mean", "worst"]
    rows = [
        [
            code_of(content),
            sizes_of(content),
            lost,
            percent(own["mean"]),
            percent(own["worst"]),
            "met" if own["worst"] <= MOST_FALSE else "**missed**",
        ]
        for content in contents
        for lost, own in content["false_alarms"].items()
    ]
    return Table([*headers, "target"], rows)


def check_times(contents: Sequence[Content]) -> Table:
    """Returns a row for each batch size: milliseconds of the parts of a check."""
    names = {"inspect": "`inspect`", "name": "`name_culprit`"}
    names |= {"decode": "decoder", "merge": "merge"}
    rows = [
        [code_of(content), sizes_of(content), size, *(f"{own[x]:.2f}" for x in names)]
        for content in contents
        for size, own in content["milliseconds"].items()
    ]
    return Table(["network, code", "k, r", "images", *names.values()], rows)


def calibrated_text(content: Content) -> str:
    """Returns the calibration of a check as an item of a list."""
    return (
        f"- {code_of(content)}, k={content['run']['config']['k']}: calibrated on "
        f"{content['check']['images']:,} validation images (after "
        f"{content['check']['training_images']:,} training images) in "
        f"{content['timing']['seconds']['calibrate']:.0f} s, tried on "
        f"{content['images']:,} test images, seed {content['seed']}: "
        f"`{content['command']}`"
    )


def checks_section() -> Section:
    """Returns rows for each kind of wrong result, false alarms, targets and times."""
    contents = [*stored.read("checks").values()]
    faults = [
        Fault(x, kind, own) for x in contents for kind, own in x["faults"].items()
    ]
    text = (
        "Percent of all test images, with each of the n results wrong in turn. "
        "*Named*, *named wrongly*: of those that were found. *Believed*, *left out*, "
        "*never there*: correct answers with the wrong result, without the named one "
        "(of images with a name), and with right results only. *Unnoticed*: images "
        "without an alarm whose class the wrong result has changed."
    )
    timed = (
        "Milliseconds, medians of 200 calls: the check of a request, what an alarm "
        "adds, the decoder of one lost data result, and where nothing is lost."
    )
    parts = [table.to_markdown(table.make(CHECKS, faults)), text]
    parts += [table.to_markdown(false_alarms(contents))]
    parts += [table.to_markdown(check_times(contents)), timed]
    parts += ["\n".join(map(calibrated_text, contents)), stored.origin_text(contents)]
    return Section("\n\n".join(parts))


def locator_section() -> Section:
    """Returns rows of ApproxIFER's locator on the same base models."""
    contents = [x for x in stored.read("checks").values() if x["locator"]]
    faults = [
        Fault(content, kind, own, group)
        for content in contents
        for group in content["locator"].values()
        for kind, own in group["faults"].items()
    ]
    made = table.to_markdown(table.make(LOCATOR, faults))
    return Section(f"{made}\n\n{stored.origin_text(contents)}")


SECTIONS: dict[str, Callable[[], Section]] = {
    "load": load_section,
    "faults": faults_section,
    "soak": soak_section,
    "checks": checks_section,
    "locator": locator_section,
}
