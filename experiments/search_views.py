r"""Searches the views of a code of one round, on the validation part.

    python experiments/search_views.py --halos=8,16 --data_dir=/data/imagenette96 \
        --flagfile=experiments/flags/views_imagenette.flags --workdir=runs/search_views

For every size of the crops that cover the image, which the halo gives, all candidates
are computed once: crops at the ends and in the middle of each axis, the whole image and
parts between both in size, made smaller. Then it tries every choice of r parity views,
and, beside these, chooses n views greedily. A set's doubt is the mean cross-entropy
with the network's own classes, of 0 to r lost results; no label counts. The workdir
gets `search.json`, and goes on where it was stopped.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags
from rich.console import Console

from coded_jax.checks import require
from coded_jax.cli.command_line import command, run
from coded_jax.cli.experiment_flags import config_from_flags, places_from_flags
from coded_jax.codes import ViewSplit
from coded_jax.inference import costs
from coded_jax.report.table import Table, to_terminal
from coded_jax.runs import provenance
from coded_jax.runs.experiment import train_base
from coded_jax.runs.phases import Watch, watching
from coded_jax.runs.prepare import prepare
from coded_jax.runs.workdir import versions, write_atomically
from coded_jax.settings import INTEGERS
from coded_jax.splitting.views import text_of
from coded_jax.training import tasks, view_search, views
from coded_jax.types import PyTree

HALOS = flags.DEFINE_string("halos", "", "pixels of the crops, each tried, as 8,16")
SHOWN = 8


@command()
def main(argv: list[str]) -> None:
    config, places = config_from_flags(), places_from_flags()
    require("split", config.split, config.split == "views", "views")
    halos = INTEGERS.parse(HALOS.value) or (config.halo,)
    console = Console(highlight=False)
    file = Path(places.workdir or ".").absolute() / "search.json"
    found = json.loads(file.read_text())["sizes"] if file.exists() else []
    with watching(file.parent) as watch:
        for halo in halos:
            if halo in [size["halo"] for size in found]:
                continue
            own = dataclasses.replace(config, halo=halo)
            experiment = prepare(own, places._replace(workdir=file.parent / str(halo)))
            frozen = train_base(experiment, watch).params
            found.append({"halo": halo, **_search(experiment, frozen, watch)})
            content = {
                "config": config.to_json(),
                "provenance": provenance.collect(
                    "python experiments/search_views.py",
                    config.to_flags(),
                    jax.devices(),
                ),
                "versions": versions(),
                "sizes": found,
            }
            write_atomically(file, json.dumps(content, indent=1) + "\n")
    for size in found:
        console.print(_table(size))


def _search(experiment: Any, frozen: PyTree, watch: Watch) -> dict[str, Any]:
    """Returns the sets of views of one size with their scores."""
    config, pipeline, inputs = (
        experiment.config,
        experiment.pipeline,
        experiment.examples,
    )
    assert isinstance(config.splitting, ViewSplit)
    plan = pipeline.stages[0].plan
    data = list(plan.views[: config.k])
    more = view_search.candidates(plan.image_shape, plan.size)
    every = [*data, *(view for view in more if view not in data)]
    chosen = view_search.of_views(pipeline, every)
    arrays = tasks.device_arrays(chosen.mesh, inputs.train)
    passes = views.Passes(
        config.passes, config.code_augmentation, jax.random.key(config.seed)
    )
    row = watch.table.begin(
        f"{plan.size[0]}x{plan.size[1]}", passes.images(len(inputs.train.labels))
    )
    sums = None
    for sums in views.moments_of(chosen, frozen, arrays["images"], passes):
        watch.table.update(row.id, completed=sums.seen)
    assert sums is not None
    validation = tasks.device_arrays(chosen.mesh, inputs.validation)
    centred, default = sums.moments.centred, range(config.n)
    every_ridge = views.RIDGES if config.ridge is None else (config.ridge,)
    tried = {}
    for ridge in every_ridge:
        tried[ridge] = view_search.Candidates(
            chosen, frozen, centred, validation, ridge
        )
    doubts = {ridge: own.doubt(default, config.r) for ridge, own in tried.items()}
    ridge = min(doubts, key=doubts.get)
    of_ridge = tried[ridge]
    sets = view_search.parities(of_ridge, range(config.k), len(every), config.r)
    greedy = view_search.greedy(of_ridge, len(every), config.n, config.r)
    cost = costs.cost_of(pipeline, frozen, plan.image_shape)

    def record(found: view_search.Found) -> dict[str, Any]:
        most = min(config.r, len(found.views) - 1)
        scores = of_ridge.patterns(found.views, most)
        by_lost = [
            {
                "mean": float(np.mean([x.accuracy for x in own])),
                "worst": min(x.accuracy for x in own),
                "agreement": float(np.mean([x.agreement for x in own])),
                "doubt": float(np.mean([x.doubt for x in own])),
            }
            for own in scores
        ]
        names = [text_of(every[i]) for i in found.views]
        return {"views": names, "doubt": found.doubt, "lost": by_lost}

    return {
        "size": plan.size,
        "work": cost.device_flops / cost.whole_flops,
        "images": sums.seen,
        "base_accuracy": of_ridge.base_accuracy,
        "ridges": {str(ridge): doubt for ridge, doubt in doubts.items()},
        "ridge": ridge,
        "candidates": [*map(text_of, every)],
        "sets": [record(own) for own in sets],
        "greedy": [record(own) for own in greedy],
    }


def _table(size: dict[str, Any]) -> Any:
    """Returns the best sets, and those chosen greedily."""
    rows = []
    for kind, sets in (("parity", size["sets"][:SHOWN]), ("greedy", size["greedy"])):
        for own in sets:
            drops = [
                f"{100 * (size['base_accuracy'] - lost['mean']):.2f}/"
                f"{100 * (size['base_accuracy'] - lost['worst']):.2f} "
                f"({100 * lost['agreement']:.1f})"
                for lost in own["lost"]
            ]
            new = own["views"][-1:] if kind == "greedy" else own["views"]
            rows.append([kind, f"{own['doubt']:.4f}", *drops, " ".join(new)])
    lost = len(size["sets"][0]["lost"])
    rows = [
        [*row[:2], *row[2:-1], *[""] * (lost + 3 - len(row)), row[-1]] for row in rows
    ]
    headers = ["set", "doubt", *(f"{l} lost" for l in range(lost)), "views"]
    return to_terminal(Table(headers, rows))


if __name__ == "__main__":
    run(main)
