"""Tables of single runs: Table V, other networks, groups, layers, images, headline."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from coded_jax.inference.costs import Cost
from coded_jax.report.formatting import (
    measure_text,
    network_text,
    percent,
    size_text,
    stages_text,
)
from coded_jax.report.run_tables import WHOLE, methods_of
from coded_jax.report.table import Table, make, select
from coded_jax.runs.config import Config
from coded_jax.runs.reading import code_name, read_cost
from tables import stored, targets
from tables.stored import Content, Section
from tables.targets import NONE

NAMES = {
    **{"lenet5": "LeNet-5", "vgg16": "VGG-16", "resnet18": "ResNet-18"},
    **{"mobilenet": "MobileNet", "mnist": "MNIST", "cifar10": "CIFAR-10"},
    "folder imagenette96": "Imagenette",
}
HEADLINE = {
    "frontier": ("lenet5_default_k2_r1", "lenet5_default_k4_r2"),
    "table5": ("table5_k2_r1_systematic", "table5_k4_r2_systematic"),
    "deep": (
        *("vgg16_ours_k2_r1", "vgg16_ours_k4_r2", "resnet18_ours_k2_r1"),
        *("mobilenet_ours_k2_r1", "imagenette_ours_k4_r2"),
        *("fashion_vgg16_all_ours_k4_r2", "fashion_resnet18_ours_k4_r2"),
    ),
}
"""Runs of the first table of all results, by their folders."""
README = {"lenet5_default_k2_r1", *HEADLINE["deep"][:5]}
"""Those of the README."""


class Row(NamedTuple):
    """A code of a run with so many results lost.

    Attributes:
      name: of the run.
      results: the content of its `results.json`.
      lost: how many results are lost, as `summary` has it; 0 for the network itself.
      code: its name among `run_tables.methods_of`.
    """

    name: str
    results: Content
    lost: str
    code: str

    @property
    def config(self) -> dict[str, Any]:
        """Settings of the run."""
        return self.results["config"]

    @property
    def sizes(self) -> tuple[int, int]:
        """The numbers of data and parity pieces."""
        return self.results["split"]["k"], self.results["split"]["r"]

    @property
    def accuracy(self) -> dict[str, float]:
        """Accuracies with so many results lost."""
        return methods_of(self.results)[self.code][self.lost]

    @property
    def cost(self) -> Cost | None:
        """Cost of the code; None in runs from before costs had rounds."""
        name = "code" if self.code == self.config["code"] else self.code
        if "rounds" not in self.results.get("costs", {}).get(name, {}):
            return None
        cost = read_cost(self.results, name)
        return cost.on_every_device(cost.devices) if self.lost == "0" else cost


def read(table: str) -> dict[str, Content]:
    """Returns a table's runs by name, sorted by network, code and sizes, with defaults
    of settings that a former version did not have."""

    def order(run: Content) -> tuple:
        config, split = run["config"], run["split"]
        network = (run["dataset"], config["base_model"], len(split["stages"]))
        recipe = (config["encoder"] != "mlp", config["recipe"])
        return network, recipe, (split["k"], split["r"])

    runs, measured = stored.read(table), stored.HISTORY in table
    for run in runs.values():
        run["config"] = {**Config().to_json(), **run["config"]}
        run["measured"] = stored.HISTORY if measured else NONE
    return dict(sorted(runs.items(), key=lambda item: order(item[1])))


def rows_of(runs: dict[str, Content], baselines: bool = False) -> Iterator[Row]:
    """Yields a row of each run for each number of lost results from 1 to r; with
    `baselines` also of these, and of the network itself where answers are images."""
    for name, results in runs.items():
        own = results["config"]["code"]
        if baselines and results.get("positions"):
            yield Row(name, results, "0", own)
        for lost in range(1, results["split"]["r"] + 1):
            for code in methods_of(results) if baselines else [own]:
                yield Row(name, results, str(lost), code)


def accuracy(measure: str, code: str = "") -> Callable[[Row], str]:
    """Returns the text of a measure of a baseline, or of the row's own code."""

    def text(row: Row) -> str:
        values = methods_of(row.results).get(code or row.code, {}).get(row.lost, {})
        if measure not in values or code == row.code:
            return NONE
        is_psnr = measure.endswith("psnr")
        return f"{values[measure]:.1f} dB" if is_psnr else measure_text(values, measure)

    return text


def both(of: str = "", code: str = "") -> Callable[[Row], str]:
    """Returns the text `mean (worst)`, bold of the row's own code; see `accuracy`."""
    mean, worst = accuracy(f"mean{of}", code), accuracy(f"worst{of}", code)
    form = "{} ({})" if code or of else "**{}** ({})"
    return lambda row: NONE if mean(row) == NONE else form.format(mean(row), worst(row))


def data_text(row: Row) -> str:
    """Returns the data set, and the size of images of which each position counts."""
    size = f" of {size_text(row.results['image_shape'][:2])}"
    return stored.data_of(row.results) + size * bool(row.results.get("positions"))


def code_text(row: Row) -> str:
    """Returns the name of a row's code with its networks."""
    name = code_name(row.config, row.code)
    if row.code == "parity_model" and row.config["parity_pieces"] == "montage":
        name += ", montage"
    return WHOLE if row.lost == "0" else name


def target(row: Row) -> str:
    """Returns the target of a row and whether it is met; `-` where it has none."""
    results, split, lost = row.results, row.config["split"], row.lost
    if split == "group" and "decoded" in row.accuracy:
        return targets.published(results, row.code, lost, row.accuracy["decoded"])
    other = row.code != row.config["code"] or split != "image"
    if other or results.get("positions"):
        return NONE
    if results["dataset"].startswith("mnist"):
        return targets.above_rivals(results, lost)
    if results["dataset"] in targets.DEEP_DATA:
        return targets.deep(results, lost) or NONE
    return targets.drop(results, lost)


def published(row: Row) -> str:
    """Returns the accuracy that the paper or its authors' code has for a row."""
    if row.config["split"] == "image" and row.results["dataset"] == "mnist":
        return targets.PAPER.get(row.sizes, NONE)
    same = (row.results["dataset"], row.config["base_model"], row.sizes)
    of_authors = same == ("fashion_mnist", "lenet5", (4, 2))
    return targets.AUTHORS.get(row.lost, NONE) if of_authors else NONE


def differing(row: Row) -> str:
    """Returns the largest part of answers that losses change, in percent."""
    if row.code != row.config["code"]:
        return NONE
    patterns = [p for p in row.results["patterns"] if len(p["lost"]) == int(row.lost)]
    return f"{100 * max(1 - p['agreement'] for p in patterns):.2f}"


COSTS: dict[str, Callable[[Cost], str]] = {
    "coded, % of all work": lambda x: f"{100 * x.coded_flops / x.whole_flops:.0f}",
    "work": lambda x: f"{sum(x.parts.values()):.2f}",
    "work of a device": lambda x: f"{x.parts['piece']:.3f}",
    "of what is coded": lambda x: f"{x.device_flops / x.coded_flops:.3f}",
    "encode": lambda x: f"{x.parts['encode']:.3f}",
    "decode": lambda x: f"{x.parts['decode']:.3f}",
    "rest": lambda x: f"{x.parts['uncoded']:.3f}",
    "client's work": lambda x: f"{x.client_total / x.whole_flops:.3f}",
    "kB in": lambda x: f"{x.total.bytes_in / 1e3:.1f}",
    "kB out": lambda x: f"{x.total.bytes_out / 1e3:.1f}",
    "rounds": lambda x: str(len(x.rounds)),
}
PARTS = ("mean", "worst")
RIVALS = {
    "no parity": "no_parity",
    "zero-fill": "zero_fill",
    "replication": "replication",
}
CSV: dict[str, Callable[[Row], str]] = {
    "run": lambda row: row.name,
    "measured": lambda row: row.results["measured"],
    "data": data_text,
    "network": lambda row: network_text(
        row.config["base_model"], row.config["base_width"]
    ),
    "k": lambda row: str(row.sizes[0]),
    "r": lambda row: str(row.sizes[1]),
    "lost": lambda row: row.lost,
    "code": code_text,
    "channels": lambda row: row.config["decoder_channels"] or NONE,
    "pieces": lambda row: size_text(row.results["split"]["grid"]),
    "stages": lambda row: stages_text(
        [stage["blocks"] for stage in row.results["split"]["stages"]]
    ),
    "base": lambda row: percent(row.results["base"]["test_accuracy"]),
    "nothing lost": lambda row: accuracy("mean")(row._replace(lost="0")),
    **{x: accuracy(x) for x in (*PARTS, "decoded")},
    **{
        f"{x} {y}": accuracy(f"{x}_{y.lower()}") for y in ("IoU", "PSNR") for x in PARTS
    },
    **{f"{x}, {y}": accuracy(y, name) for x, name in RIVALS.items() for y in PARTS},
    "drop": lambda row: (
        f"{100 * (row.results['base']['test_accuracy'] - row.accuracy['mean']):.2f}"
    ),
    "target": target,
    "published": published,
    "answers changed, %": differing,
    **{
        header: lambda row, text=text: NONE if row.cost is None else text(row.cost)
        for header, text in COSTS.items()
    },
    "seconds": lambda row: f"{row.results['timing']['seconds']['total']:.0f}",
    "seed": lambda row: str(row.results["seed"]),
    **stored.origins(lambda row: row.results),
}
"""Columns of the CSV files, of which each has those that are not empty."""
TEXTS = {
    **CSV,
    "data, network": lambda row: f"{data_text(row)}, {CSV['network'](row)}",
    "network, data": lambda row: (
        f"{NAMES[row.config['base_model']]}, {NAMES[stored.data_of(row.results)]}"
    ),
    "no split, no loss": CSV["base"],
    "k, r": lambda row: f"{row.sizes[0]}, {row.sizes[1]}",
    **dict.fromkeys(
        ("mean (worst)", "r lost, mean (worst)", "all, mean (worst)"), both()
    ),
    "mean IoU (worst)": both("_iou"),
    "PSNR (worst)": both("_psnr"),
    **{f"{x}, mean (worst)": both(code=name) for x, name in RIVALS.items()},
    **{"paper": published, "above both": target, "published loss": target},
    "kB, in + out": lambda row: f"{CSV['kB in'](row)} + {CSV['kB out'](row)}",
}
"""Columns of the pages."""


def page_table(headers: str, rows: Iterable[Row]) -> Table:
    """Returns a table of columns of `TEXTS`, whose headers ` | ` separates."""
    return make({header: TEXTS[header] for header in headers.split(" | ")}, rows)


def csv_table(rows: Iterable[Row]) -> Table:
    """Returns the columns of `CSV` that are not empty in all rows."""
    return select(make(CSV, rows), lambda _, texts: bool({*texts} - {NONE, ""}))


def section(
    table: str,
    headers: str,
    shown: Callable[[Row], bool] = lambda row: True,
    baselines: bool = False,
) -> Section:
    """Returns the rows of a folder's runs that are to be shown, with columns by their
    headers, and all rows of present and former runs as CSV."""
    runs, former = read(table), read(f"{stored.HISTORY}/{table}")
    rows = [*rows_of(runs, baselines)]
    full = csv_table([*rows, *rows_of(former, baselines)])
    return stored.section(
        page_table(headers, filter(shown, rows)),
        files={f"{table}.csv": (full, "code and number of lost results")},
        contents=runs.values(),
    )


def headline_rows() -> Iterator[Row]:
    """Yields the row of each run of `HEADLINE` with r results lost."""
    for table, names in HEADLINE.items():
        runs = read(table)
        for name in names:
            (*_, most_lost) = rows_of({name: with_rivals(runs, name)})
            yield most_lost


def with_rivals(runs: dict[str, Content], name: str) -> Content:
    """Returns a run with the rivals that have runs of their own: of `A_ours_B`, without
    parity that of `A_no_parity_B`, zero-fill a baseline of `A_untrained_B`."""
    others = {key: run for key, run in runs.items() if key != name}
    rivals = dict(runs[name]["baselines"])
    if no_parity := others.get(name.replace("_ours_", "_no_parity_")):
        rivals["no_parity"] = no_parity["summary"]
    if untrained := others.get(name.replace("_ours_", "_untrained_")):
        rivals["zero_fill"] = untrained["baselines"]["zero_fill"]
    return runs[name] | {"baselines": rivals}


def headline_section() -> Section:
    """Returns the first table of all results, and all of its columns as CSV."""
    rows = [*headline_rows()]
    headers = "data, network | k, r | code | base | r lost, mean (worst) | "
    headers += "no parity, mean (worst) | work | target"
    return stored.section(
        page_table(headers, rows),
        files={"headline.csv": (csv_table(rows), "code")},
        contents=[row.results for row in rows],
    )


ALL_LOST = lambda row: int(row.lost) == row.sizes[1]
SECTIONS: dict[str, Callable[[], Section]] = {
    "headline": lambda: stored.section(
        page_table(
            "network, data | k, r | no split, no loss | r lost, mean (worst) | work",
            [row for row in headline_rows() if row.name in README],
        )
    ),
    "headline_all": headline_section,
    "results": lambda: section(
        "table5",
        "k, r | code | mean (worst) | no parity, mean (worst) | paper | above both | "
        "work",
        ALL_LOST,
    ),
    "zoo": lambda: section(
        "networks",
        "network | k, r | lost | base | mean (worst) | drop | target | work | "
        "coded, % of all work",
    ),
    "layers": lambda: section(
        "layers",
        "network | k, r | rounds | work of a device | client's work | kB, in + out | "
        "r lost, mean (worst) | replication, mean (worst)",
        ALL_LOST,
    ),
    "groups": lambda: section(
        "groups",
        "data, network | k, r | code | base | decoded | published loss | "
        "all, mean (worst)",
        lambda row: row.code in ("parity_model", "berrut", "addition"),
        baselines=True,
    ),
    "images": lambda: section(
        "images",
        "data, network | k, r | lost | code | mean (worst) | mean IoU (worst) | "
        "PSNR (worst) | work",
        lambda row: row.lost == "0" or ALL_LOST(row),
        baselines=True,
    ),
}
