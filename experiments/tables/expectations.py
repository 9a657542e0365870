"""The comment in a flagfile that says what its runs have given."""

from __future__ import annotations

import itertools
import textwrap
from pathlib import Path

from coded_jax.report.formatting import measure_text, percent
from tables import stored
from tables.stored import Content

HEADING = "# Expect (of stored results, written by experiments/renew.py):"
BEGIN = "#   "
WIDTH = 88
FLAGS = stored.EXPERIMENTS / "flags"
TABLES = ("table5", "networks", "cheap", "groups", "layers", "images")


def renewed() -> dict[Path, str]:
    """Returns the texts of all flagfiles, with what their stored runs gave."""
    (quickstart,) = stored.read("quickstart").values()
    runs = {"quickstart": quickstart}
    for table in TABLES:
        runs |= stored.read(table)
        former = stored.read(f"{stored.HISTORY}/{table}")
        runs |= {f"{name} (history)": run for name, run in former.items()}
    return {
        path: renewed_text(path.read_text(), lines(path.name, runs))
        for path in sorted(FLAGS.glob("*.flags"))
    }


def renewed_text(text: str, made: list[str]) -> str:
    """Returns a flagfile with other lines below `HEADING`; as it is without that."""
    if HEADING not in text:
        return text
    before, heading, after = text.partition(f"{HEADING}\n")
    kept = itertools.dropwhile(lambda x: x.startswith(BEGIN), after.splitlines(True))
    return "".join([before, heading, *(f"{line}\n" for line in made), *kept])


def lines(flagfile: str, runs: dict[str, Content]) -> list[str]:
    """Returns accuracies, times, machine and date of each run of a flagfile, such as
    `quickstart.flags`."""
    wrapper = textwrap.TextWrapper(WIDTH, BEGIN, f"{BEGIN}  ", break_on_hyphens=False)
    made = []
    for name, run in runs.items():
        if f"/{flagfile}" not in run["command"]:
            continue
        by_lost = [
            f"{measure_text(row, 'mean')} (worst {measure_text(row, 'worst')}) with "
            f"{l} lost"
            for l, row in run["summary"].items()
            if 0 < int(l) <= run["split"]["r"]
        ]
        hardware = stored.hardware_of(run)
        processor = hardware.get("processor")
        cores = stored.cores_text(hardware["cores"])
        made += wrapper.wrap(
            f"{name}: base {percent(run['base']['test_accuracy'])} %, "
            f"{', '.join(by_lost)}; {stored.times_text(run)}, "
            f"{stored.seconds_of(run):.0f} s in all on "
            f"{' '.join(filter(None, [cores, processor]))}, "
            f"{stored.origin_of(run).date}"
        )
    return made
