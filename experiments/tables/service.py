"""Tables of a service: its load, faults, a soak, and checks of wrong results."""

from __future__ import annotations

import collections
import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

from coded_jax.report import table
from coded_jax.report.formatting import network_text, percent
from coded_jax.report.table import Columns, Table
from coded_jax.service.byzantine.study import STANDARD
from tables import stored
from tables.stored import Content, Section, section
from tables.targets import NONE

LEAST_FOUND, MOST_FALSE = 0.99, 0.001  # targets of checks


def milliseconds(seconds: float | None) -> str:
    """Returns seconds as milliseconds, `none` where no request was answered."""
    return "none" if seconds is None else f"{1e3 * seconds:.0f}"


def measured(name: str, of: Callable[[list[Content]], str | Table]) -> Section:
    """Returns what is made of the stored results of a name, with their commands."""
    contents = [*stored.read(name).values()]
    commands = ", ".join(f"`{content['command']}`" for content in contents)
    return section(of(contents), commands, contents=contents)


LOAD: Columns = {
    "together": lambda point: str(point["together"]),
    "sent": lambda point: f"{point['rate']:g}",
    "answered": lambda point: f"{point['per_second']:.0f}",
    "of a batch": lambda point: f"{point['images_per_batch']:.1f}",
    "p50 ms": lambda point: milliseconds(point["p50"]),
    "p99 ms": lambda point: milliseconds(point["p99"]),
    "slowest ms": lambda point: milliseconds(point["slowest"]),
    "refused": lambda point: f"{100 * point['lost'] / point['requests']:.1f} %",
    "wrong": lambda point: str(point["wrong"]),
}
"""Columns of a rate: images of a batch, at most; requests per second sent and answered;
images of a batch, on average; latencies."""


def seconds_of(row: Content, key: str) -> list[float]:
    """Returns the seconds after each fault that could be done until `key`, infinite
    where it never came, in order of length."""
    done = [x[key] for x in row["done"] if not x.get("error")]
    return sorted(math.inf if seconds is None else seconds for seconds in done)


def seconds_text(row: Content, key: str) -> str:
    """Returns median and longest of the seconds after a fault until `key`."""
    seconds = seconds_of(row, key)
    known = [value for value in seconds if value < math.inf]
    if not known:
        return "never" if seconds else ""
    shown = [known[len(known) // 2], known[-1]][: len(known)]
    never = f"; {len(seconds) - len(known)} never" * (len(seconds) > len(known))
    return ", ".join(f"{value:.2f}" for value in shown) + never


FAULTS: Columns = {
    "what is done": lambda row: row["name"],
    "times": lambda row: str(len(seconds_of(row, "noticed"))) if row["done"] else "",
    "sent": lambda row: str(row["disturbed"]["requests"]),
    "lost": lambda row: str(row["disturbed"]["lost"]),
    "wrong": lambda row: str(row["wrong"]),
    "calm p99 ms": lambda row: milliseconds(row["calm"]["p99"]),
    "p99 ms": lambda row: milliseconds(row["disturbed"]["p99"]),
    "slowest ms": lambda row: milliseconds(row["disturbed"]["slowest"]),
    "noticed s": lambda row: (
        "" if kinds_of(row) == {"reload"} else seconds_text(row, "noticed")
    ),
    "place s": lambda row: seconds_text(row, "answering"),
    "back s": lambda row: seconds_text(row, "recovered"),
}


kinds_of = lambda row: {done["kind"] for done in row["done"]}


def fault_verdict(row: Content) -> str:
    """Returns whether a row met its target; empty if it has none.

    Nothing lost or wrong, and with spares: noticed in 0.2 s, the place taken 0.5 s
    later, back after 6 s, p99 under 3 times the calm one. Of the machinery: noticed in
    5 s, all places taken after 30.
    """
    kinds, slow = kinds_of(row), False
    if kinds == {"kill worker"} and row["settings"].get("spares", 0):
        limits = {"noticed": 0.2, "answering": 0.7, "recovered": 6.0}
        slow = row["disturbed"]["p99"] >= 3 * row["calm"]["p99"]
    elif kinds and not kinds & {"kill worker", "freeze worker", "reload"}:
        limits = {"noticed": 5.0, "answering": 30.0}
    else:
        return ""
    longest = lambda key: max(seconds_of(row, key), default=math.inf)
    missed = [key for key, limit in limits.items() if longest(key) > limit]
    missed += ["p99"] * slow + ["lost"] * (row["disturbed"]["lost"] > 0)
    missed += ["wrong"] * (row["wrong"] > 0)
    return f"**missed** ({', '.join(missed)})" if missed else "met"


def soak_lines(content: Content) -> list[str]:
    """Returns the events and the outcome of a soak, of `soak.json`, a line each."""
    requests, start, end = content["requests"], content["start"], content["end"]
    failed = sum(bool(done.get("error")) for done in content["done"])
    kinds = collections.Counter(
        x["kind"] for x in content["done"] if not x.get("error")
    )
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


class Row(NamedTuple):
    """A row of a table of checks: a kind of wrong result, or a number of lost results
    or of images, and what was measured with it in a check."""

    content: Content
    name: str
    measures: Content


def rows_of(contents: Iterable[Content], field: str) -> list[Row]:
    """Returns a row for each entry of a field of each check."""
    return [Row(x, name, own) for x in contents for name, own in x[field].items()]


def network_of(content: Content) -> str:
    """Returns data set and network of a check."""
    config = content["run"]["config"]
    network = network_text(config["base_model"], config["base_width"])
    return f"{content['run']['dataset']}, {network.removesuffix(' x 1')}"


def code_of(content: Content) -> str:
    """Returns data set, network and code of a check."""
    codecs = "{encoder} / {decoder}".format(**content["run"]["config"])
    return f"{network_of(content)}, {codecs}"


def percentage(name: str) -> Callable[[Row], str]:
    """Returns the cell of a measure in percent, `-` where there is none."""
    in_percent = lambda value: NONE if value is None else percent(value)
    return lambda row: in_percent(row.measures[name])


def found_text(row: Row) -> str:
    """Returns the part that is found, and whether the target of its kind is met."""
    share = row.measures["found"]
    met = " met" if share >= LEAST_FOUND else " **missed**"
    return percent(share) + met * (row.name in STANDARD)


CODE: Columns = {
    "network, code": lambda x: code_of(x.content),
    "k, r": lambda x: "{k}, {r}".format(**x.content["run"]["config"]),
}
CHECKS: Columns = {
    **CODE,
    "wrong result": lambda x: x.name,
    "found": found_text,
    "in the worst result": percentage("worst"),
    "named": percentage("named"),
    "named wrongly": percentage("misnamed"),
    "believed": percentage("believed"),
    "left out": percentage("left_out"),
    "never there": lambda x: percent(x.content["right"]),
    "unnoticed": percentage("unnoticed"),
}
FALSE_ALARMS: Columns = {
    **CODE,
    "results lost": lambda x: x.name,
    "false alarms, mean": percentage("mean"),
    "worst": percentage("worst"),
    "target": lambda x: "met" if x.measures["worst"] <= MOST_FALSE else "**missed**",
}
TIMES: Columns = {
    **CODE,
    "images": lambda x: x.name,
    "`inspect`": lambda x: f"{x.measures['inspect']:.2f}",
    "`name_culprit`": lambda x: f"{x.measures['name']:.2f}",
    "decoder": lambda x: f"{x.measures['decode']:.2f}",
    "merge": lambda x: f"{x.measures['merge']:.2f}",
}
LOCATOR: Columns = {
    "network": lambda x: network_of(x.content),
    "images together, workers": lambda x: "{k}, {workers}".format(**x.content),
    "wrong result": lambda x: x.name,
    "named": percentage("named"),
    "believed": percentage("believed"),
    "left out": percentage("left_out"),
    "never there": lambda x: percent(x.content["right"]),
    "always left out": lambda x: percent(x.content["always_located"]),
    "base": lambda x: percent(x.content["base"]),
    "whole images of work for each": lambda x: (
        f"{x.content['workers'] / x.content['k']:.2f}"
    ),
}


def checks_section() -> Section:
    """Returns rows for each kind of wrong result, false alarms, targets and times."""
    contents = [*stored.read("checks").values()]
    calibrations = [
        f"- {code_of(x)}, k={x['run']['config']['k']}: calibrated on "
        f"{x['check']['images']:,} validation images (after "
        f"{x['check']['training_images']:,} training images) in "
        f"{x['timing']['seconds']['calibrate']:.0f} s, tried on {x['images']:,} test "
        f"images, seed {x['seed']}: `{x['command']}`"
        for x in contents
    ]
    return section(
        table.make(CHECKS, rows_of(contents, "faults")),
        "Percent of all test images, with each of the n results wrong in turn. "
        "*Named*, *named wrongly*: of those that were found. *Believed*, *left out*, "
        "*never there*: correct answers with the wrong result, without the named one "
        "(of images with a name), and with right results only. *Unnoticed*: images "
        "without an alarm whose class the wrong result has changed.",
        table.make(FALSE_ALARMS, rows_of(contents, "false_alarms")),
        table.make(TIMES, rows_of(contents, "milliseconds")),
        "Milliseconds, medians of 200 calls: the check of a request, what an alarm "
        "adds, the decoder of one lost data result, and where nothing is lost.",
        "\n".join(calibrations),
        contents=contents,
    )


def locator_section() -> Section:
    """Returns rows of ApproxIFER's locator on the same base models."""
    contents = [*stored.read("checks").values()]
    groups = [{**x, **group} for x in contents for group in x["locator"].values()]
    return section(table.make(LOCATOR, rows_of(groups, "faults")), contents=contents)


SECTIONS = {
    "load": lambda: measured("load", lambda x: table.make(LOAD, x[0]["points"])),
    "faults": lambda: measured(
        "faults",
        lambda contents: table.make(
            {**FAULTS, "target": fault_verdict},
            [row for content in contents for row in content["rows"]],
        ),
    ),
    "soak": lambda: measured(
        "soak", lambda x: "\n".join(["```text", *soak_lines(x[0]), "```"])
    ),
    "checks": checks_section,
    "locator": locator_section,
}
