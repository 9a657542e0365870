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
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import app, flags, logging
from rich.console import Console
from tables.latency_tables import console_table, plot

from coded_jax import data, serving
from coded_jax.checks import require
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
from coded_jax.runs import workdir
from coded_jax.runs.coded_model import CodedModel
from coded_jax.runs.progress import progress_bars
from coded_jax.runs.ranges import OWN
from coded_jax.studies import latency_study, replay, rivals
from coded_jax.studies.latency_study import Measurement, Strategy
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


class Report:
    """The parts of the study measured so far, on the disk after every part."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.path = folder / REPORT
        self.content: dict[str, Any] = {"settings": settings, "parts": {}}
        if self.path.exists():
            content = json.loads(self.path.read_text())
            if content.get("settings") != settings:
                raise ValueError(
                    f"output: {str(folder)!r} given, which has a report of other "
                    "settings; a new folder accepted"
                )
            self.content = content

    def part(self, name: str, make: Callable[[], Any]) -> Any:
        """Returns a part of the report, which `make()` makes if it is not there."""
        if name not in self.content["parts"]:
            self.content["parts"][name] = make()
            self.write()
        return self.content["parts"][name]

    def write(self) -> None:
        workdir.write_atomically(self.path, json.dumps(self.content))


def microseconds(seconds: np.ndarray) -> list[float]:
    """Returns seconds rounded to microseconds."""
    return np.round(np.asarray(seconds, np.float64), 6).tolist()


def strategies(model: CodedModel, hedge_after: float) -> dict[str, Strategy]:
    """Returns the code and its rivals."""
    plain = rivals.uncoded(model)
    named = {
        "uncoded": Strategy("uncoded", plain),
        "hedged": Strategy("hedged", plain, hedge_after),
        "replication": Strategy("replication", rivals.replicated(model)),
        "coded": Strategy("coded", model),
    }
    if MDS_STAGES.value:
        blocks = integers("mds_stages", MDS_STAGES.value)
        stages = tuple((block, block) for block in blocks)
        named["mds"] = Strategy("mds", rivals.per_convolution(model, stages))
    return named


class Study:
    """Measures the parts of a report that are missing."""

    def __init__(
        self, report: Report, service: serving.Service, split: Split, console: Console
    ) -> None:
        pool = service.engine.pool
        assert pool is not None  # of an engine with workers
        self._report, self._model, self._pool = report, service.model, pool
        self._split, self._console = split, console

    def measure(self, faults: serving.Faults) -> None:
        """Measures and simulates each strategy, without faults and with them."""
        model, quiet = self._model, serving.Faults()
        images, calm_requests = self._split.images, CALM_REQUESTS.value
        self._report.part(
            "bare",
            lambda: microseconds(
                latency_study.program_seconds(model, images, calm_requests)
            ),
        )
        plain = Strategy("uncoded", rivals.uncoded(model))
        calm = self._latencies("uncoded, calm", plain, calm_requests, quiet)
        after = HEDGE_AFTER.value
        if after is None:  # late is what takes twice as long as usual
            after = 2 * float(np.median(calm["seconds"]))
        for name, strategy in strategies(model, after).items():
            calm = self._latencies(f"{name}, calm", strategy, calm_requests, quiet)
            self._latencies(f"{name}, delayed", strategy, REQUESTS.value, faults)
            self._simulation(name, strategy, calm, faults)
            plan = {
                "pieces": rivals.pieces_text(strategy.model.pipeline),
                "work": rivals.work_of(strategy.model),
                "hedge_after": strategy.hedge_after,
            }
            self._report.part(f"{name}, plan", lambda plan=plan: plan)

    def recover(self) -> None:
        """Kills as many workers as the code survives."""
        self._report.part(
            "killed",
            lambda: latency_study.measure_recovery(
                Strategy("coded", self._model),
                self._pool,
                self._split.images,
                self._model.pipeline.r,
                DEADLINE.value,
            )._asdict(),
        )

    def _latencies(
        self, name: str, strategy: Strategy, requests: int, faults: serving.Faults
    ) -> dict[str, Any]:
        seconds = rivals.service_seconds(strategy.model, SERVICE.value)

        def make() -> dict[str, Any]:
            with progress_bars(self._console) as bars:
                bar = bars.add_task(name, total=requests, note="")
                measurement = latency_study.measure_latencies(
                    strategy,
                    self._pool,
                    self._split,
                    requests,
                    faults=dataclasses.replace(faults, service=seconds),
                    deadline=DEADLINE.value,
                    advance=lambda: bars.advance(bar),
                )
            rounded = microseconds(measurement.seconds)
            return {**measurement._asdict(), "seconds": rounded}

        return self._report.part(name, make)

    def _simulation(
        self,
        name: str,
        strategy: Strategy,
        calm: dict[str, Any],
        faults: serving.Faults,
    ) -> None:
        measurement = Measurement(**{**calm, "seconds": np.array(calm["seconds"])})
        size = len(self._pool), REQUESTS.value
        self._report.part(
            f"{name}, simulated",
            lambda: microseconds(replay.replay(strategy, measurement, faults, *size)),
        )


def checked_faults() -> serving.Faults:
    """Returns the delays of the flags.

    Raises:
      ValueError: there are none, or another flag is out of range.
    """
    faults = faults_from_flags()
    if faults is None or not faults.delays:
        raise ValueError("delay: not given, a distribution accepted")
    pooled = [name for name, kind in serving.ENGINES.items() if kind.pooled]
    require("engine", ENGINE.value, ENGINE.value in pooled, f"one of {pooled}")
    require("service", SERVICE.value, 0 <= SERVICE.value < 1000, "0..1000")
    for flag in (REQUESTS, CALM_REQUESTS):
        require(flag.name, flag.value, flag.value >= 10, "10 or more")
    integers("mds_stages", MDS_STAGES.value)
    return faults


def open_report(
    folder: Path, results: dict[str, Any], faults: serving.Faults
) -> Report:
    """Returns the report of these flags, perhaps from a former call."""
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
    sizes = results["split"]
    faults.of_request(0, sizes["k"] + sizes["r"])  # for as many workers
    folder.mkdir(parents=True, exist_ok=True)
    return Report(folder, settings)


def study(faults: serving.Faults, console: Console) -> None:
    """Makes the report and its plot."""
    folder = workdir.absolute(OUTPUT.value, "output")
    results = workdir.read_results(workdir.absolute(WORKDIR.value))
    if results["dataset"] == OWN:
        raise ValueError("workdir: of a CNN of its own given, another one accepted")
    if DEVICES.value is not None:
        startup.offer_cpu_devices(DEVICES.value)
    startup.keep_compilations(None)
    report = open_report(folder, results, faults)
    split = data.load(results["dataset"], DATA_DIR.value).test
    with serving.serve(
        WORKDIR.value,
        ENGINE.value,
        address=ADDRESS.value,
        patience=PATIENCE.value,
        deadline=DEADLINE.value,
    ) as service:
        parts = Study(report, service, split, console)
        parts.measure(faults)
        if serving.ENGINES[ENGINE.value].processes:
            parts.recover()
    report.content |= {
        "command": shlex.join(["python", *sys.argv]),
        "versions": {"python": platform.python_version(), **workdir.versions()},
        "device": jax.devices()[0].device_kind,
        "base_accuracy": results["base"]["test_accuracy"],
        "summary": results["summary"],
    }
    report.write()
    console.print(console_table(report.content))
    try:
        plot(folder / "latency.png", report.content)
    except ImportError as error:
        console.print(str(error))
    console.print(f"all of it is in {OUTPUT.value}", highlight=False)


def main(argv: list[str]) -> None:
    refuse_arguments(argv)
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)  # no notes on accelerators not found
    try:
        study(checked_faults(), Console())
    except KeyboardInterrupt:
        sys.exit("stopped; the same command goes on from there")
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
