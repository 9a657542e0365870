r"""Measures how many requests a service answers, and how fast: by itself and joined.

    python experiments/load.py --workdir=runs/quickstart --output=runs/load

Sends single images at the times of a Poisson process, at one rate after the other, to
one set of workers: first with each request by itself, then with those that wait
computed together. Prints a table, and writes `load.json` and `load.png`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from absl import flags
from measured import OUTPUT, WORKDIR, Report
from rich.console import Console
from tables import service as tables

from coded_jax.checks import require
from coded_jax.cli.command_line import command, integers, run
from coded_jax.cli.runtime_flags import ENGINE
from coded_jax.devices import startup
from coded_jax.report import canvas, table
from coded_jax.service import ServeConfig, serve
from coded_jax.service.service import Service
from coded_jax.service.studies.clients import latencies, open_loop, wrong_answers

RATES = flags.DEFINE_list(
    "rates", ["25", "50", "100", "200", "400", "800"], "requests per second"
)
SECONDS = flags.DEFINE_float("seconds", 15.0, "of each rate", lower_bound=0.1)
TOGETHER = flags.DEFINE_list(
    "together", ["1", "8", "32"], "images of a batch, at most; 1 joins none"
)
ENOUGH = 0.7  # of a rate: where less is answered, higher ones are not tried


def curve(service: Service, images: Any, most: int, rates: list[int]) -> list[dict]:
    """Measures all rates with requests joined up to `most` images."""
    config = ServeConfig(queue=256, max_batch=None if most == 1 else most)
    joined = Service(service.engine, config)
    for batch in sorted({1, most}):
        joined.warm_up(batch)
    submit = lambda images: joined.submit(images, block=False)
    points = []
    for rate in rates:
        before = joined.summary()
        exchanges = open_loop(submit, images, rate, SECONDS.value)
        after = joined.summary()
        batches = after["batches"] - before["batches"]
        points.append(
            {
                **{"together": most, "rate": rate, **latencies(exchanges)},
                "images_per_batch": (after["images"] - before["images"]) / batches,
                "wrong": wrong_answers(service.model, images, exchanges),
            }
        )
        if points[-1]["per_second"] < ENOUGH * rate:
            break
    joined.release()
    return points


def draw(path: Path, points: list[dict[str, Any]]) -> None:
    """Draws median and p99 against answered requests per second.

    Raises:
      ImportError: matplotlib is missing.
    """
    figure = canvas.new_figure(8, 4.5)
    axes = figure.subplots()
    for i, together in enumerate(sorted({point["together"] for point in points})):
        own = [point for point in points if point["together"] == together]
        rate = [point["per_second"] for point in own]
        label = "each by itself" if together == 1 else f"up to {together} together"
        style = {"color": f"C{i}", "marker": "o"}
        axes.plot(rate, [1e3 * point["p50"] for point in own], label=label, **style)
        axes.plot(rate, [1e3 * point["p99"] for point in own], "--", **style)
    axes.set(xlabel="requests answered per second", ylabel="milliseconds; dashed: p99")
    axes.set(xscale="log", yscale="log")
    axes.grid(alpha=0.3)
    axes.legend()
    canvas.save(figure, path, 100)


@command()
def main(argv: list[str]) -> None:
    console = Console(highlight=False)
    rates = sorted(integers("rates", RATES.value))
    together = sorted(integers("together", TOGETHER.value))
    for name, values in (("rates", rates), ("together", together)):
        fits = bool(values) and values[0] >= 1
        require(name, values, fits, "one or more numbers of 1 or more")
    report, points = Report(), []
    images, batches = report.test.images, tuple(sorted({1, *together}))
    shown = lambda points: table.to_terminal(table.make(tables.LOAD, points))
    with serve(WORKDIR.value, ENGINE.value, batches=batches) as service:
        startup.shorten_collections()  # as `serve.py` does
        for most in together:
            points += curve(service, images, most, rates)
            console.print(shown(points[-1:]))
    report.write("load.json", points=points)
    console.print(shown(points))
    try:
        draw(report.folder / "load.png", points)
    except ImportError as error:
        console.print(str(error), markup=False)
    console.print(f"all of it is in {OUTPUT.value}")


if __name__ == "__main__":
    run(main)
