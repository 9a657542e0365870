"""The last lines of a soak: what became of requests, and of the front end."""

from __future__ import annotations

import collections
from typing import Any

from tables import stored


def lines(content: dict[str, Any]) -> list[str]:
    """Returns what happened, a line each.

    Args:
      content: of `soak.json`.
    """
    requests, start, end = content["requests"], content["start"], content["end"]
    failed = sum(bool(done.get("error")) for done in content["done"])
    kinds = collections.Counter(
        done["kind"] for done in content["done"] if not done.get("error")
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


def terminal(content: dict[str, Any]) -> str:
    """Returns the lines, and errors that requests ended with."""
    errors = [f"{count} x {error}" for error, count in content["errors"].items()]
    return "\n".join([*lines(content), *errors])


def section() -> str:
    """Returns the lines of the stored soak, and what made it."""
    (content,) = stored.contents("soak")
    text = "\n".join(lines(content))
    origin = stored.origin_text([content])
    return f"```text\n{text}\n```\n\n`{content['command']}`. {origin}"
