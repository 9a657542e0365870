r"""Latencies of a code and its rivals, measured on real workers and simulated.

    python experiments/latency.py --workdir=runs/quickstart --output=runs/latency \
        --delay=shifted_exponential --delay_parameters=0,0.05 --stragglers=1

Starts a worker for every piece of a finished run. Uncoded, hedged, replicated and coded
requests meet the same delays on them; at last as many workers are killed as the code
survives. Prints a table, and writes `latency.json` and `latency.png`. Run the same
command again to go on after a stop.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags
from measured import OUTPUT, WORKDIR, Report
from rich.console import Console
from tables import latency as tables

from coded_jax.checks import require
from coded_jax.cli.command_line import command, integers, origin, run
from coded_jax.cli.runtime_flags import ENGINE, faults_from_flags, options_from_flags
from coded_jax.devices import startup
from coded_jax.report import canvas, table
from coded_jax.runs.config import OWN
from coded_jax.service import ENGINES, Faults, serve
from coded_jax.service.service import Service
from coded_jax.service.studies import latency_study, rivals
from coded_jax.service.studies.latency_study import CALM, Measurement, Study
from coded_jax.service.studies.rivals import ServedStrategy
from coded_jax.types import Split

REQUESTS = flags.DEFINE_integer(
    "requests", 1000, "of each strategy, with delays", lower_bound=10
)
CALM_REQUESTS = flags.DEFINE_integer(
    "calm_requests", 500, "of each, without", lower_bound=10
)
SERVICE = flags.DEFINE_float(
    "service",
    0.0,
    "seconds that a machine is to take for the whole of F_Conv; its worker takes its "
    "part of them",
    lower_bound=0,
    upper_bound=1000,
)
CLIENT = flags.DEFINE_multi_float(
    "client",
    None,
    "likewise of the client, which encodes and decodes: 0 for one as fast as this "
    "machine; may be given several times. One of the machines' kind and 0 if not given",
    lower_bound=0,
    upper_bound=1000,
)
MDS_STAGES = flags.DEFINE_list(
    "mds_stages", [], "convolutions that a linear code is tried with, as 1,3"
)
DEVICES = flags.DEFINE_integer(
    "devices", None, "of the local engine, which a CPU stands for"
)

STEPS = 400  # of a curve


def measure(
    study: Study, service: Service, test: Split, faults: Faults, console: Console
) -> None:
    """Measures all parts of a study that are missing, with a bar for each.

    Raises:
      ValueError: all requests of a part were lost.
    """
    pool, model, options = service.engine.pool, service.model, options_from_flags()

    def measured(name: str, strategy: ServedStrategy, count: int, met: Faults) -> Any:
        make = lambda ended: latency_study.measure_latencies(
            strategy.engine(pool),
            test,
            count,
            strategy.at_pace(met, SERVICE.value),
            deadline=options["deadline"],
            ended=ended,
        )._asdict()
        return study.measure(name, count, make, console)

    coded, uncoded = rivals.coded(model), rivals.uncoded(model)
    own = {"replication": rivals.replicated(model), "coded": coded}
    if stages := integers("mds_stages", MDS_STAGES.value):
        own["mds"] = rivals.per_convolution(model, tuple((x, x) for x in stages))
    for client in study.content["settings"]["clients"]:
        part_name = functools.partial(tables.part_name, client=client)
        plain = uncoded._replace(client=client)
        calm = part_name("uncoded, calm")
        usual = measured(calm, plain, CALM_REQUESTS.value, CALM)
        late = options["hedge_after"]
        if late is None:  # late is what takes twice as long as usual
            late = 2 * float(np.median(usual["seconds"]))
        strategies = {
            "uncoded": plain,
            "hedged": plain._replace(hedge_after=late),
            "hedged at once": plain._replace(hedge_after=0.0),
            **{name: rival._replace(client=client) for name, rival in own.items()},
        }
        for name, strategy in strategies.items():
            calm, delayed, simulated, plan = (
                part_name(f"{name}, {kind}")
                for kind in ("calm", "delayed", "simulated", "plan")
            )
            quiet = measured(calm, strategy, CALM_REQUESTS.value, CALM)
            measured(delayed, strategy, REQUESTS.value, faults)
            simulate = functools.partial(
                latency_study.simulate_latencies,
                strategy,
                Measurement(**quiet),
                strategy.at_pace(faults, SERVICE.value),
                workers=len(pool),
                requests=REQUESTS.value,
            )
            study.part(simulated, simulate)
            study.part(plan, strategy.plan)
    if ENGINES[ENGINE.value].processes:
        recover = lambda: latency_study.measure_recovery(
            coded.engine(pool), test.images, model.pipeline.r, options["deadline"]
        )
        study.part("killed", recover)


def draw_study(path: Path, content: dict[str, Any]) -> None:
    """Draws shares of requests that take longer, without delays and with them; dashed,
    what is simulated.

    Args:
      path: of the picture.
      content: of `latency.json`.

    Raises:
      ImportError: matplotlib is missing.
    """

    def draw_tail(axes: Any, seconds: Any, **style: Any) -> None:
        ordered = np.sort(np.asarray(seconds, np.float32))
        count = np.isfinite(ordered).sum()  # of those that come at all
        # Half of the points crowd at the tail, which a logarithmic axis makes as long.
        tail = count + 1 - np.geomspace(1, max(count, 1), STEPS // 2)
        steps = np.r_[np.linspace(1, max(count, 1), STEPS // 2), tail]
        ranks = np.unique(steps.astype(int))[:count]
        shares = 1 - ranks / len(ordered)
        axes.step(1e3 * ordered[ranks - 1], shares, where="post", **style)

    tried = content["settings"]["clients"]
    figure = canvas.new_figure(12, 4.5 * len(tried))
    axes_of = figure.subplots(len(tried), 2, sharey=True, squeeze=False)
    for client, (left, right) in zip(tried, axes_of, strict=True):
        for i, requests in enumerate(tables.requests_of(content, client)):
            style = {"color": f"C{i}", "label": requests.name}
            draw_tail(left, requests.part("calm")["seconds"], **style)
            draw_tail(right, requests.part("delayed")["seconds"], **style)
            simulated = requests.part("simulated")
            draw_tail(right, simulated, color=f"C{i}", linestyle="--")
        whose = f"client: {tables.client_text(client)}"
        share = "share of requests that take longer"
        left.set(title=f"without delays; {whose}", ylabel=share)
        right.set(title=f"with delays; {whose}; dashed: simulated")
        for axes in (left, right):
            axes.set(xlabel="milliseconds", xscale="log", yscale="log")
            axes.grid(alpha=0.3)
        right.legend()
    canvas.save(figure, path, 90)


@command(resumes=True)
def main(argv: list[str]) -> None:
    console = Console(highlight=False)
    faults, options = faults_from_flags(), options_from_flags()
    if faults is None or not faults.delays:
        raise ValueError("delay: not given, a distribution accepted")
    if DEVICES.value is not None:
        startup.offer_cpu_devices(DEVICES.value)
    report = Report()
    results = report.results
    own, values = results["dataset"] == OWN, bool(results.get("values"))
    accepted = "that of a registered network which answers with classes"
    require("workdir", WORKDIR.value, not own and not values, accepted)
    sizes = results["split"]
    faults.of_request(0, sizes["k"] + sizes["r"])  # for as many workers
    clients = CLIENT.value or sorted({SERVICE.value, 0.0}, reverse=True)
    settings = {
        "run": {"config": results["config"], "steps": results["steps"]},
        "engine": ENGINE.value,
        "requests": REQUESTS.value,
        "calm_requests": CALM_REQUESTS.value,
        "faults": repr(faults),
        "service": SERVICE.value,
        "clients": [*dict.fromkeys(clients)],
        "hedge_after": options["hedge_after"],
        "mds_stages": MDS_STAGES.value,
    }
    study = Study(report.folder / "latency.json", settings)
    used = {name: options[name] for name in ("address", "patience", "deadline")}
    with serve(WORKDIR.value, ENGINE.value, **used) as service:
        measure(study, service, report.test, faults, console)
    study.write(
        **origin(),
        device=jax.devices()[0].device_kind,
        base_accuracy=results["base"]["test_accuracy"],
        summary=results["summary"],
    )
    for client in settings["clients"]:
        made = table.make(tables.COLUMNS, tables.requests_of(study.content, client))
        # A column for each strategy.
        first, *rows = zip(made.headers, *made.rows, strict=True)
        title = f"milliseconds, and %; client: {tables.client_text(client)}"
        turned = table.Table(["", *first[1:]], rows)
        console.print(table.to_terminal(turned, title))
    console.print(*tables.conclusions(study.content), sep="\n")
    try:
        draw_study(report.folder / "latency.png", study.content)
    except ImportError as error:
        console.print(str(error), markup=False)
    console.print(f"all of it is in {OUTPUT.value}")


if __name__ == "__main__":
    run(main)
