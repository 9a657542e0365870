"""Tables of runs on one code each: Table V, other networks, groups, answers that are
images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from coded_jax.codes import LEARNED
from coded_jax.report import run_tables
from coded_jax.report.formatting import (
    measure_text,
    percent,
    size_text,
    stages_text,
)
from coded_jax.report.run_tables import methods_of
from coded_jax.runs.reading import total_work
from coded_jax.runs.run_costs import read_cost
from tables import markdown, stored, targets
from tables.finished_runs import read_published

RESULTS_COLUMNS = (
    "k, r, l",
    "code",
    "recipe",
    "base",
    "mean",
    "worst",
    "zero-fill mean (worst)",
    "no parity mean (worst)",
    "paper",
    "above both",
    "work",
    "epochs",
    "seed",
    "wall time",
    "run",
)

REMARK_ON_PAPER = (
    "The paper's figures are of codes that its authors, by their public code, trained "
    "without erasures and tested with one random pattern for each batch; ours are "
    "trained with erasures and tested with every pattern. So this compares recipes as "
    "much as codes. *Above both*: more accurate than the paper and, in mean and worst, "
    "than the same decoder without parity. *Work*: of the busiest device for one "
    "image, encoding and decoding included, over the whole `F_Conv`."
)

ZOO_COLUMNS = (
    "network",
    "k, r",
    "l",
    "base",
    "mean",
    "worst",
    "drop",
    "target",
    "work",
    "no parity mean (worst)",
    "zero-fill mean (worst)",
    "coded stages",
    "pieces",
    "work of a piece",
    "nothing lost",
    "authors' code",
    "run",
)

GROUP_COLUMNS = (
    "network",
    "k, r",
    "code",
    "base",
    "nothing lost",
    "l",
    "decoded answers",
    "published loss",
    "all, mean",
    "all, worst",
)

LAYER_COLUMNS = (
    "network",
    "k, r",
    "rounds",
    "work of a device",
    "client: encode + decode + rest",
    "kB of a device, in + out",
    "base",
    "r lost, mean (worst)",
    "answers that change",
    "replication, mean (worst)",
    "run",
)

IMAGE_COLUMNS = (
    "data, network",
    "k, r",
    "lost",
    "code",
    "mean",
    "worst",
    "mean IoU or PSNR (worst)",
    "work",
)

REMARK_ON_IMAGES = (
    "*Mean*, *worst*: over all patterns of so many lost results; the accuracy of "
    "positions in %, of values R^2 in %. *IoU*: intersection over union, in %; of "
    "values the peak signal-to-noise ratio in dB. *Work*: of the busiest device, "
    "encoding and decoding included, over that of the network on the whole image."
)


def order(results: dict[str, Any]) -> tuple:
    """Returns a key that sorts runs by data set, network, code and sizes."""
    config, stages = results["config"], results["split"].get("stages", [])
    network = (results["dataset"], config["base_model"], len(stages))
    return *network, config["encoder"] != "mlp", config["recipe"], *pieces(results)


def pieces(results: dict[str, Any]) -> tuple[int, int]:
    """Returns `(k, r)`."""
    return results["split"]["k"], results["split"]["r"]


def baseline(results: dict[str, Any], name: str, lost: str) -> str:
    """Returns mean and worst accuracy of a baseline; `-` if it was not evaluated."""
    summary = results["baselines"].get(name)
    if not summary:
        return "-"
    mean, worst = (measure_text(summary[lost], x) for x in ("mean", "worst"))
    return f"{mean} ({worst})"


def table_5_row(name: str, results: dict[str, Any]) -> list[str]:
    """Returns the row of a run on MNIST, as of Table V."""
    config, split = results["config"], results["split"]
    lost = max(l for l in results["summary"] if int(l) <= split["r"])
    coded = results["summary"][lost]
    return [
        f"{split['k']}, {split['r']}, {lost}",
        networks(config),
        config["recipe"],
        percent(results["base"]["test_accuracy"]),
        f"**{measure_text(coded, 'mean')}**",
        measure_text(coded, "worst"),
        baseline(results, "zero_fill", lost),
        baseline(results, "no_parity", lost),
        targets.PAPER.get(pieces(results), "-"),
        targets.above_rivals(results, lost),
        work_text(results),
        f"{config['base_epochs']:g} + {config['epochs']:g}",
        str(results["seed"]),
        f"{results['timing']['seconds']['total']:.0f} s",
        f"`{name}`",
    ]


def zoo_rows(name: str, results: dict[str, Any]) -> list[list[str]]:
    """Returns a row of a run for every number of lost results but 0."""
    config, split, base = results["config"], results["split"], results["base"]
    stages, piece = coded_work_texts(results)
    rows = []
    for lost, coded in list(results["summary"].items())[1:]:
        authors = "-"
        if (results["dataset"], config["base_model"]) == ("fashion_mnist", "lenet5"):
            authors = targets.AUTHORS.get(lost, authors) if split["k"] == 4 else authors
        cells = [
            f"{config['base_model']} x {config['base_width']:g}",
            f"{split['k']}, {split['r']}",
            lost,
            percent(base["test_accuracy"]),
            f"**{measure_text(coded, 'mean')}**",
            measure_text(coded, "worst"),
            f"{100 * (base['test_accuracy'] - coded['mean']):.2f}",
            targets.drop(results, lost),
            work_text(results),
            baseline(results, "no_parity", lost),
            baseline(results, "zero_fill", lost),
            stages,
            size_text(split["grid"]),
            piece,
            percent(results["summary"]["0"]["mean"]),
            authors,
            f"`{name}`",
        ]
        rows.append(cells)
    return rows


def group_rows(results: dict[str, Any]) -> list[list[str]]:
    """Returns a row of a run on groups of images for every code and every number of
    lost results from 1 to r."""
    config, (k, r) = results["config"], pieces(results)
    network = f"{results['dataset']}, {config['base_model']} x {config['base_width']:g}"
    montage = config.get("parity_pieces") == "montage"
    rows = []
    for name, losses in methods_of(results).items():
        for lost, summary in losses.items():
            if not 0 < int(lost) <= r:
                continue
            cells = [
                network,
                f"{k}, {r}",
                f"{name}, montage" if montage else name,
                percent(results["base"]["test_accuracy"]),
                measure_text(losses["0"], "mean"),
                lost,
                f"**{measure_text(summary, 'decoded')}**"
                if "decoded" in summary
                else "-",
                targets.published(results, name, lost, summary["decoded"])
                if "decoded" in summary
                else "-",
                measure_text(summary, "mean"),
                measure_text(summary, "worst"),
            ]
            rows.append(cells)
    return rows


def image_rows(results: dict[str, Any]) -> list[list[str]]:
    """Returns a row of a run whose answers are images for the network itself, and for
    every code and every number of lost results from 1 to r."""
    config, (k, r) = results["config"], pieces(results)
    works = run_tables.works(results)
    name = (
        f"{results['dataset']} of {size_text(results['image_shape'][:2])}, "
        f"{config['base_model']} x {config['base_width']:g}"
    )
    # A systematic code gives the network's own answers where nothing is lost.
    whole, base = run_tables.WHOLE, percent(results["base"]["test_accuracy"])
    of_whole = position_measure(results["summary"]["0"])
    rows = [[name, f"{k}, {r}", "any", whole, base, base, of_whole, "1.00"]]
    for lost in map(str, range(1, r + 1)):
        for code, losses in methods_of(results).items():
            cells = [name, f"{k}, {r}", lost, code]
            cells += [measure_text(losses[lost], x) for x in ("mean", "worst")]
            rows.append([*cells, position_measure(losses[lost]), f"{works[code]:.2f}"])
    return rows


def position_measure(summary: dict[str, float]) -> str:
    """Returns mean and worst of what only answers that are images have."""
    if "mean_psnr" in summary:
        return f"{summary['mean_psnr']:.1f} dB ({summary['worst_psnr']:.1f})"
    return f"{percent(summary['mean_iou'])} ({percent(summary['worst_iou'])})"


def layer_row(name: str, results: dict[str, Any]) -> list[str]:
    """Returns the row of a run that codes every convolution by itself."""
    config, (k, r) = results["config"], pieces(results)
    cost, lost = read_cost(results, "code"), results["summary"][str(r)]
    client = (cost.encode_flops, cost.decode_flops, cost.client_flops)
    changed = max(1 - pattern["agreement"] for pattern in results["patterns"])
    return [
        f"{config['base_model']} x {config['base_width']:g}",
        f"{k}, {r}",
        str(len(cost.rounds)),
        f"{cost.device_flops / cost.whole_flops:.3f}",
        " + ".join(f"{flops / cost.whole_flops:.3f}" for flops in client),
        f"{cost.bytes_in / 1e3:.1f} + {cost.bytes_out / 1e3:.1f}",
        percent(results["base"]["test_accuracy"]),
        f"**{measure_text(lost, 'mean')}** ({measure_text(lost, 'worst')})",
        f"{100 * changed:.2f} %",
        baseline(results, "replication", str(r)),
        f"`{name}`",
    ]


def times(results: dict[str, Any]) -> str:
    """Returns epochs and seconds of a run's phases."""
    config, seconds = results["config"], results["timing"]["seconds"]
    phases = [f"base {config['base_epochs']:g} epochs {seconds['base']:.0f} s"]
    if seconds["code"]:
        phases.append(f"code {config['epochs']:g} epochs {seconds['code']:.0f} s")
    if "no_parity" in seconds:
        phases.append(f"no parity {seconds['no_parity']:.0f} s")
    return ", ".join([*phases, f"evaluation {seconds['evaluation']:.0f} s"])


def networks(config: dict[str, Any]) -> str:
    """Returns `mlp / conv 128`: networks with widths, and with channels where they are
    not the default; of a code without such networks its name."""
    if config.get("code", LEARNED) != LEARNED:
        return config["code"]
    encoder = [config["encoder"], config["encoder_width"]]
    decoder = [config[f"decoder{part}"] for part in ("", "_width", "_channels")]
    return " / ".join(
        " ".join(str(word) for word in words if word is not None)
        for words in (encoder, decoder)
    )


def kind(results: dict[str, Any]) -> str:
    """Returns the table that a run is shown in."""
    if results.get("positions"):
        return "images"
    of_splits = {"group": "groups", "convolution": "layers"}
    if (split := results["config"].get("split")) in of_splits:
        return of_splits[split]
    return "table5" if results["dataset"].startswith("mnist") else "networks"


def target_text(table: str, results: dict[str, Any], lost: str) -> str:
    """Returns the target of a run's row in `table5` or `networks`."""
    if table == "table5":
        return targets.above_rivals(results, lost)
    return targets.drop(results, lost)


def work_text(results: dict[str, Any]) -> str:
    """Returns the work of the busiest device over that of the whole `F_Conv`, with that
    of the code and of what is not coded; `-` of runs from before it was counted."""
    if "uncoded" not in results.get("costs", {}).get("code", {}):
        return "-"
    return f"{total_work(read_cost(results, 'code').to_json()):.2f}"


def coded_work_texts(results: dict[str, Any]) -> tuple[str, str]:
    """Returns the coded stages with their share of all work, and a device's share of
    their work; without either of runs from before it was counted."""
    stages = stages_text([stage["blocks"] for stage in results["split"]["stages"]])
    if work_text(results) == "-":
        return stages, "-"
    cost = read_cost(results, "code")
    coded = cost.whole_flops - cost.client_flops
    share = 100 * coded / cost.whole_flops
    return f"{stages} ({share:.0f} % of all work)", f"{cost.device_flops / coded:.3f}"


def read(folder: Path) -> dict[str, dict[str, Any]]:
    """Returns the content of each file of a folder by its name, in order of rows."""
    runs = {path.stem: read_published(path) for path in folder.glob("*.json")}
    return dict(sorted(runs.items(), key=lambda item: order(item[1])))


def history(table: str) -> str:
    """Returns the rows of a table that are history; see `section`."""
    folder = stored.history_of(table)
    return "No rows: all are above." if folder is None else section(table, folder)


def section(table: str, folder: Path | None = None) -> str:
    """Returns a table, the setup of its measurements, and the command of each run.

    Args:
      table: `table5` with the runs on MNIST, `networks` with those on other data sets,
        `groups` with those that code different images together, `layers` with those
        that code every convolution by itself, `images` with those whose answers are
        images.
      folder: of the runs; that of `stored.folder_of` if it is not given.
    """
    folder = folder or stored.folder_of(table)
    runs = read(folder)
    columns, rows_of = {
        "table5": (RESULTS_COLUMNS, lambda run, results: [table_5_row(run, results)]),
        "networks": (ZOO_COLUMNS, zoo_rows),
        "groups": (GROUP_COLUMNS, lambda _, results: group_rows(results)),
        "layers": (LAYER_COLUMNS, lambda run, results: [layer_row(run, results)]),
        "images": (IMAGE_COLUMNS, lambda _, results: image_rows(results)),
    }[table]
    rows = [cells for run, results in runs.items() for cells in rows_of(run, results)]
    details = {
        "table5": lambda results: "",
        "networks": lambda results: f" (seed {results['seed']}; {times(results)})",
        "groups": lambda results: f" (seed {results['seed']})",
        "layers": lambda results: f" (seed {results['seed']}; {times(results)})",
        "images": lambda results: f" (seed {results['seed']}; {times(results)})",
    }[table]
    commands = [f"- `{run}`{details(r)}: `{r['command']}`" for run, r in runs.items()]
    remarks = {"table5": [REMARK_ON_PAPER], "images": [REMARK_ON_IMAGES]}
    parts = [
        markdown.table(columns, rows),
        *remarks.get(table, []),
        stored.origin_text([*runs.values()]),
        "\n".join([*stored.notes(runs), *commands]),
    ]
    text = "\n\n".join(parts)
    return stored.with_history(text, folder, runs.values())
