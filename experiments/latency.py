r"""Latencies of a code and its rivals, measured on real workers and simulated.

    python experiments/latency.py --workdir=runs/quickstart --output=runs/latency \
        --delay=shifted_exponential --delay_parameters=0,0.05 --stragglers=1

Starts a worker for every piece of a finished run. Uncoded, hedged, replicated and coded
requests meet the same delays on them; at last as many workers are killed as the code
survives. Prints a table, and writes `latency.json` and `latency.png`. Run the same
command again to go on after a stop.
"""

from __future__ import annotations

import dataclasses
import json
import platform
import shlex
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import app, flags, logging
from rich.console import Console
from tables.latency_tables import console_table, plot

from coded_jax import data
from coded_jax.cli.command_line import integers, parse_flags, refuse_arguments
from coded_jax.cli.runtime_flags import (
    ADDRESS,
    DEADLINE,
    ENGINE,
    HEDGE_AFTER,
    PATIENCE,
    faults_from_flags,
)
from coded_jax.devices import startup
from coded_jax.runs import coded_model, workdir
from coded_jax.runs.progress import progress_bars
from coded_jax.runs.ranges import OWN
from coded_jax.studies import latency_study, replay, rivals
from coded_jax.studies.latency_study import Strategy
from coded_jax.types import Split

WORKDIR = flags.DEFINE_string("workdir", None, "of a finished run", required=True)
OUTPUT = flags.DEFINE_string("output", None, "folder of the report", required=True)
DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "folder of prepared TFDS data; TFDS_DATA_DIR if not given"
)
REQUESTS = flags.DEFINE_integer("requests", 1000, "of each strategy, with delays")
CALM_REQUESTS = flags.DEFINE_integer("calm_requests", 500, "of each, without")
SERVICE = flags.DEFINE_float(
    "service",
    0.0,
    "seconds that a machine is to take for the whole of F_Conv; its worker sleeps for "
    "its part of them",
)
MDS_STAGES = flags.DEFINE_list(
    "mds_stages", [], "convolutions that a linear code is tried with, as 1,3"
)
DEVICES = flags.DEFINE_integer(
    "devices", None, "of the local engine, which a CPU stands for"
)
REPORT = "latency.json"


class Study:
    """What has been measured so far, on the disk after every part."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.path = folder / REPORT
        self.content: dict[str, Any] = {"settings": settings, "parts": {}}
        if self.path.exists():
            found = json.loads(self.path.read_text())
            if found.get("settings") != settings:
                raise ValueError(
                    f"output: {str(folder)!r} given, which has a report of other "
                    "settings; a new folder accepted"
                )
            self.content = found

    def part(self, name: str, make: Any) -> Any:
        """What `make()` returns, or has returned before."""
        if name not in self.content["parts"]:
            self.content["parts"][name] = make()
            self.write()
        return self.content["parts"][name]

    def write(self) -> None:
        workdir.write_atomically(self.path, json.dumps(self.content))


def microseconds(seconds: np.ndarray) -> list[float]:
    """Rounded to them."""
    return np.round(np.asarray(seconds, np.float64), 6).tolist()


def strategies(
    model: coded_model.CodedModel, hedge_after: float
) -> dict[str, Strategy]:
    plain = rivals.uncoded(model)
    found = {
        "uncoded": Strategy("uncoded", plain),
        "hedged": Strategy("hedged", plain, hedge_after),
        "replication": Strategy("replication", rivals.replicated(model)),
        "coded": Strategy("coded", model),
    }
    if MDS_STAGES.value:
        blocks = integers("mds_stages", MDS_STAGES.value)
        per_layer = rivals.layers(model, tuple((block, block) for block in blocks))
        found["mds"] = Strategy("mds", per_layer)
    return found


def measure(
    study_of: Study,
    service: coded_model.Service,
    split: Split,
    faults: coded_model.Faults,
    console: Console,
) -> None:
    """Fills in all parts of the study that are missing."""
    pool, model = service.engine.pool, service.model
    images, labels = split.images, split.labels
    total = len(pool)

    def part(
        name: str, strategy: Strategy, requests: int, met: coded_model.Faults
    ) -> dict[str, Any]:
        seconds = rivals.service(strategy.model, SERVICE.value)
        met = dataclasses.replace(met, service=seconds)

        def make() -> dict[str, Any]:
            with progress_bars(console) as bars:
                bar = bars.add_task(name, total=requests, note="")
                found = latency_study.measure(
                    strategy,
                    pool,
                    images,
                    labels,
                    requests,
                    met,
                    DEADLINE.value,
                    lambda: bars.advance(bar),
                )
            return {**found._asdict(), "seconds": microseconds(found.seconds)}

        return study_of.part(name, make)

    one = lambda: microseconds(latency_study.bare(model, images, CALM_REQUESTS.value))
    study_of.part("bare", one)
    quiet = coded_model.Faults()
    plain = Strategy("uncoded", rivals.uncoded(model))
    calm = part("uncoded, calm", plain, CALM_REQUESTS.value, quiet)
    after = HEDGE_AFTER.value
    if after is None:  # late is what takes twice as long as usual
        after = 2 * float(np.median(calm["seconds"]))
    for name, strategy in strategies(model, after).items():
        calm = part(f"{name}, calm", strategy, CALM_REQUESTS.value, quiet)
        part(f"{name}, delayed", strategy, REQUESTS.value, faults)

        def simulated(strategy=strategy, calm=calm) -> list[float]:
            known = latency_study.Measured(
                **{**calm, "seconds": np.array(calm["seconds"])}
            )
            found = replay.replay(strategy, known, faults, total, REQUESTS.value)
            return microseconds(found)

        study_of.part(f"{name}, simulated", simulated)
        what = {
            "pieces": rivals.pieces_text(strategy.model.pipeline),
            "work": rivals.work_of(strategy.model),
            "hedge_after": strategy.hedge_after,
        }
        study_of.part(f"{name}, plan", lambda what=what: what)

    def killed() -> dict[str, Any]:
        coded = Strategy("coded", model)
        count = model.pipeline.r
        return latency_study.kill(coded, pool, images, count, DEADLINE.value)._asdict()

    if ENGINE.value == "ray":
        study_of.part("killed", killed)


def main(argv: list[str]) -> None:
    refuse_arguments(argv)
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)  # no notes on accelerators not found
    console = Console()
    try:
        faults = faults_from_flags()
        if faults is None or not faults.delays:
            raise ValueError("delay: not given, a distribution accepted")
        if ENGINE.value == "spmd":
            raise ValueError("engine: 'spmd' given, 'ray' or 'local' accepted")
        if not 0 <= SERVICE.value < 1000:
            raise ValueError(f"service: {SERVICE.value} given, 0..1000 accepted")
        for flag in (REQUESTS, CALM_REQUESTS):
            if flag.value < 10:
                raise ValueError(
                    f"{flag.name}: {flag.value} given, 10 or more accepted"
                )
        integers("mds_stages", MDS_STAGES.value)
        folder = workdir.absolute(OUTPUT.value, "output")
        results = workdir.read_results(workdir.absolute(WORKDIR.value))
        if results["dataset"] == OWN:
            raise ValueError("workdir: of a CNN of its own given, another one accepted")
        settings = {
            "run": {"config": results["config"], "steps": results["steps"]},
            "engine": ENGINE.value,
            "requests": REQUESTS.value,
            "calm_requests": CALM_REQUESTS.value,
            "faults": repr(faults),
            "service": SERVICE.value,
            "hedge_after": HEDGE_AFTER.value,
            "mds_stages": MDS_STAGES.value,
        }
        if DEVICES.value is not None:
            startup.offer_cpu_devices(DEVICES.value)
        startup.keep_compilations(None)
        sizes = results["split"]
        faults.of_request(0, sizes["k"] + sizes["r"])  # for as many workers
        folder.mkdir(parents=True, exist_ok=True)
        study_of = Study(folder, settings)
        split = data.load(results["dataset"], DATA_DIR.value).test
        with coded_model.serve(
            WORKDIR.value,
            ENGINE.value,
            address=ADDRESS.value,
            patience=PATIENCE.value,
            deadline=DEADLINE.value,
        ) as service:
            measure(study_of, service, split, faults, console)
        study_of.content |= {
            "command": shlex.join(["python", *sys.argv]),
            "versions": {"python": platform.python_version(), **workdir.versions()},
            "device": jax.devices()[0].device_kind,
            "base_accuracy": results["base"]["test_accuracy"],
            "summary": results["summary"],
        }
        study_of.write()
        console.print(console_table(study_of.content))
        try:
            plot(folder / "latency.png", study_of.content)
        except ImportError as error:
            console.print(str(error))
        console.print(f"all of it is in {OUTPUT.value}", highlight=False)
    except KeyboardInterrupt:
        sys.exit("stopped; the same command goes on from there")
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
