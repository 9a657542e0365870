"""Tables of single runs: Table V, other networks, groups, layers, images, headline."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from coded_jax.inference.costs import Cost
from coded_jax.report.formatting import measure_text, percent, size_text, stages_text
from coded_jax.report.run_tables import WHOLE, methods_of
from coded_jax.report.table import Column, Table, make, to_markdown
from coded_jax.runs.config import Config
from coded_jax.runs.reading import code_name
from coded_jax.runs.run_costs import read_cost
from tables import stored, targets
from tables.sections import Section, linked
from tables.targets import NONE

Results = dict[str, Any]
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
    results: Results
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
        whole = cost._replace(rounds=(cost.whole,), client_flops=0.0)
        return whole if self.lost == "0" else cost


def read(table: str) -> dict[str, Results]:
    """Returns a table's runs by name, sorted by network, code and sizes.

    Settings that a former version did not have are the defaults.
    """
    defaults = Config().to_json()
    measured = {"measured": "history" if stored.HISTORY in table else NONE}
    runs = {
        name: {**results, "config": {**defaults, **results["config"]}, **measured}
        for name, results in stored.read(table).items()
    }
    return dict(sorted(runs.items(), key=lambda item: _order(item[1])))


def _order(results: Results) -> tuple:
    config, split = results["config"], results["split"]
    network = (results["dataset"], config["base_model"], len(split.get("stages", [])))
    recipe = (config["encoder"] != "mlp", config["recipe"])
    return *network, *recipe, split["k"], split["r"]


def rows_of(runs: dict[str, Results], baselines: bool = False) -> Iterator[Row]:
    """Yields a row of each run for each number of lost results from 1 to r; with
    `baselines` also of these, and of the network itself where answers are images."""
    for name, results in runs.items():
        code = results["config"]["code"]
        if baselines and results.get("positions"):
            yield Row(name, results, "0", code)
        for lost in map(str, range(1, results["split"]["r"] + 1)):
            for method in methods_of(results) if baselines else [code]:
                if lost in methods_of(results)[method]:
                    yield Row(name, results, lost, method)


def accuracy(measure: str, code: str = "") -> Callable[[Row], str]:
    """Returns the text of a measure of a baseline, or of the row's own code."""

    def text(row: Row) -> str:
        of_baseline = row.results["baselines"].get(code, {}).get(row.lost, {})
        values = of_baseline if code else row.accuracy
        if measure not in values or code == row.code:
            return NONE
        if measure.endswith("psnr"):
            return f"{values[measure]:.1f} dB"
        return measure_text(values, measure)

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


def network(row: Row) -> str:
    """Returns `vgg16 x 0.5`: the network and its width."""
    return f"{row.config['base_model']} x {row.config['base_width']:g}"


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
    patterns = [p for p in row.results["patterns"] if len(p["lost"]) == int(row.lost)]
    own = row.code == row.config["code"]
    return f"{100 * max(1 - p['agreement'] for p in patterns):.2f}" if own else NONE


def _drop(row: Row) -> str:
    base = row.results["base"]["test_accuracy"]
    return f"{100 * (base - row.accuracy['mean']):.2f}"


COSTS: dict[str, Callable[[Cost], str]] = {
    "coded, % of all work": lambda x: f"{100 * x.coded_flops / x.whole_flops:.0f}",
    "work": lambda x: f"{sum(x.parts.values()):.2f}",
    "work of a device": lambda x: f"{x.parts['piece']:.3f}",
    "of what is coded": lambda x: f"{x.device_flops / x.coded_flops:.3f}",
    "encode": lambda x: f"{x.parts['encode']:.3f}",
    "decode": lambda x: f"{x.parts['decode']:.3f}",
    "rest": lambda x: f"{x.parts['uncoded']:.3f}",
    "client's work": lambda x: f"{x.client_total / x.whole_flops:.3f}",
    "kB in": lambda x: f"{x.bytes_in / 1e3:.1f}",
    "kB out": lambda x: f"{x.bytes_out / 1e3:.1f}",
    "rounds": lambda x: str(len(x.rounds)),
}
PARTS = ("mean", "worst")
RIVALS = {"no parity": "no_parity", "zero-fill": "zero_fill"}
RIVALS["replication"] = "replication"
CSV: dict[str, Callable[[Row], str]] = {
    "run": lambda row: row.name,
    "measured": lambda row: row.results["measured"],
    "data": data_text,
    "network": network,
    "k": lambda row: str(row.sizes[0]),
    "r": lambda row: str(row.sizes[1]),
    "lost": lambda row: row.lost,
    "code": code_text,
    "channels": lambda row: row.config["decoder_channels"] or NONE,
    "pieces": lambda row: size_text(row.results["split"].get("grid") or ()),
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
    "drop": _drop,
    "target": target,
    "published": published,
    "answers changed, %": differing,
    **{
        header: lambda row, text=text: NONE if row.cost is None else text(row.cost)
        for header, text in COSTS.items()
    },
    "seconds": lambda row: f"{stored.seconds_of(row.results):.0f}",
    "seed": lambda row: str(row.results["seed"]),
    **{x.header: lambda row, x=x: x.text(row.results) for x in stored.ORIGIN},
}
"""Columns of the CSV files, of which each has those that are not empty."""
TEXTS = {
    **CSV,
    "data, network": lambda row: f"{data_text(row)}, {network(row)}",
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


def page_table(headers: str, rows: Iterable[Row]) -> str:
    """Returns a table of columns of `TEXTS`, whose headers ` | ` separates."""
    return to_markdown(table_of({x: TEXTS[x] for x in headers.split(" | ")}, rows))


def table_of(columns: dict[str, Callable[[Any], str]], records: Iterable) -> Table:
    """Returns a table of columns by their headers."""
    return make([Column(*column) for column in columns.items()], records)


def csv_table(rows: Iterable[Row]) -> Table:
    """Returns the columns of `CSV` that are not empty in all rows."""
    headers, lines = table_of(CSV, rows)
    columns = zip(headers, *lines, strict=True)
    kept = [column for column in columns if {*column[1:]} - {NONE, ""}]
    headers, *lines = zip(*kept, strict=True)
    return Table(headers, lines)


def with_file(
    text: str, name: str, table: Table, what: str, contents: Iterable[Results]
) -> Section:
    """Returns Markdown, how stored results were measured, and the line of their CSV
    file, see `linked`."""
    parts = [text, stored.origin_text(contents), linked(name, table, what)]
    return Section("\n\n".join(filter(None, parts)), {name: table})


def section(
    table: str,
    headers: str,
    shown: Callable[[Row], bool] = lambda row: True,
    baselines: bool = False,
) -> Section:
    """Returns the rows of a folder's runs that are to be shown, with columns by their
    headers, and all rows of present and former runs as CSV."""
    runs, former = read(table), read(f"{stored.HISTORY}/{table}")
    rows, what = [*rows_of(runs, baselines)], "code and number of lost results"
    full = csv_table([*rows, *rows_of(former, baselines)])
    text = page_table(headers, filter(shown, rows))
    return with_file(text, f"{table}.csv", full, what, runs.values())


def headline_rows() -> Iterator[Row]:
    """Yields the row of each run of `HEADLINE` with r results lost."""
    for table, names in HEADLINE.items():
        runs = read(table)
        for name in names:
            results = with_rivals(runs, name)
            lost, code = str(results["split"]["r"]), results["config"]["code"]
            yield Row(name, results, lost, code)


def with_rivals(runs: dict[str, Results], name: str) -> Results:
    """Returns a run with the rivals that have runs of their own: of `A_ours_B`, without
    parity that of `A_no_parity_B`, zero-fill a baseline of `A_untrained_B`."""
    own, others = dict(runs[name]["baselines"]), runs.keys() - {name}
    if (no_parity := name.replace("_ours_", "_no_parity_")) in others:
        own["no_parity"] = runs[no_parity]["summary"]
    if (untrained := name.replace("_ours_", "_untrained_")) in others:
        own["zero_fill"] = runs[untrained]["baselines"]["zero_fill"]
    return runs[name] | {"baselines": own}


def readme_section() -> Section:
    """Returns the README's table."""
    headers = "network, data | k, r | no split, no loss | r lost, mean (worst) | work"
    rows = [row for row in headline_rows() if row.name in README]
    return Section(page_table(headers, rows))


def headline_section() -> Section:
    """Returns the first table of all results, and all of its columns as CSV."""
    rows = [*headline_rows()]
    headers = "data, network | k, r | code | base | r lost, mean (worst) | "
    headers += "no parity, mean (worst) | work | target"
    contents = [row.results for row in rows]
    text, full = page_table(headers, rows), csv_table(rows)
    return with_file(text, "headline.csv", full, "code", contents)


def _all_lost(row: Row) -> bool:
    return int(row.lost) == row.sizes[1]


_PAGES: dict[str, tuple] = {
    "results": (
        "table5",
        "k, r | code | mean (worst) | no parity, mean (worst) | paper | above both | "
        "work",
        _all_lost,
    ),
    "zoo": (
        "networks",
        "network | k, r | lost | base | mean (worst) | drop | target | work | "
        "coded, % of all work",
    ),
    "layers": (
        "layers",
        "network | k, r | rounds | work of a device | client's work | kB, in + out | "
        "r lost, mean (worst) | replication, mean (worst)",
        _all_lost,
    ),
    "groups": (
        "groups",
        "data, network | k, r | code | base | decoded | published loss | "
        "all, mean (worst)",
        lambda row: row.code in ("parity_model", "berrut", "addition"),
        True,
    ),
    "images": (
        "images",
        "data, network | k, r | lost | code | mean (worst) | mean IoU (worst) | "
        "PSNR (worst) | work",
        lambda row: row.lost == "0" or _all_lost(row),
        True,
    ),
}
SECTIONS: dict[str, Callable[[], Section]] = {
    "headline": readme_section,
    "headline_all": headline_section,
    **{name: functools.partial(section, *page) for name, page in _PAGES.items()},
}
