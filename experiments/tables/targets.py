"""Targets of the rows of tables, and whether a row meets its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from coded_jax.codes import LEARNED
from coded_jax.runs.reading import base_accuracy, code_name, read_cost

PAPER = {(2, 1): "90.56", (4, 1): "96.85", (4, 2): "91.79"}
"""Accuracies of Table V, MLP or Conv, by `(k, r)`."""
AUTHORS = {"1": "80.91", "2": "74.37"}
"""Accuracies of the authors' public code on Fashion-MNIST at (4, 2), base 89.13, by
lost results."""
DROPS = {"1": 0.5, "2": 1.5}
"""Points that a mean may be below the base, by lost results."""
DROPS_OF_LENET5 = {"1": 0.8, "2": 2.0}
DROPS_OF_ALL = {"1": 1.0, "2": 3.0}  # where more than this of the work is coded:
NEARLY_ALL = 0.7
FRONTIER_CODES = "systematic strided 64 / mlp 1024", "systematic smaller / sharpen 128"
FRONTIER = {(2, 1): (0.05, 0.12), (4, 1): (0.05, 0.15), (4, 2): (0.10, 0.25)}
"""Points that mean and worst pattern may be below the base with r results lost, by
`(k, r)`."""
DEEP = {
    (2, 1): {"1": (0.5, 0.8)},
    (4, 1): {"1": (0.4, 0.7)},
    (4, 2): {"1": (0.3, 0.6), "2": (1.0, 2.0)},
}
"""The same, by `(k, r)` and lost results."""
DEEP_OF_MOBILENET = {(2, 1): {"1": (0.8, 1.2)}, (4, 2): {"2": (1.5, 2.5)}}
DEEP_DATA = ("cifar10", "folder")
PRICE = (0.05, 0.5)
"""The code's work at most, as a part of that of its blocks, and the part of the network
that it codes at least."""
OTHER_PRICES = {("cifar10", "mobilenet"): (0.1, 0.0), ("folder", "vgg16"): (0.03, 0.6)}
"""The same, by data set (folders are Imagenette's) and network."""
BASES = {
    ("cifar10", "vgg16"): 92.0,
    ("cifar10", "resnet18"): 92.5,
    ("cifar10", "mobilenet"): 90.0,
    ("folder", "vgg16"): 82.0,
}
"""Accuracies of base models in percent, at least."""
PARM = {("mnist", "parity_model", "1"): 0.01}
"""Points that Kosaian et al. (2019) lose on MNIST with one of k=2, r=1 lost."""
NONE = "-"


def verdict(reached: float, most: float) -> str:
    """Returns the points that are accepted at most and whether they are met by those
    reached, in two digits as tables show them: `0.5 met` or `0.5 **missed**`."""
    return f"{most:g} {'met' if round(reached, 2) <= most else '**missed**'}"


def _verdicts(
    results: dict[str, Any], lost: str, most: Sequence[float], separator: str = " / "
) -> str:
    """Returns the verdicts on the drops of the mean and, if it has a target, of the
    worst pattern."""
    base, accuracy = base_accuracy(results), results["summary"][lost]
    drops = [100 * (base - accuracy[measure]) for measure in ("mean", "worst")]
    return separator.join(map(verdict, drops, most))


def above_rivals(results: dict[str, Any], lost: str) -> str:
    """Returns `met` where a code is more accurate than the paper's and, in mean and
    worst pattern, than the same decoder without parity; else what it is below."""
    split, code = results["split"], results["summary"][lost]
    rival = results["baselines"].get("no_parity", {}).get(lost, {})
    paper = float(PAPER.get((split["k"], split["r"]), 0))
    margins = {"paper": 100 * code["mean"] - paper}
    margins |= {
        f"no parity, {x}": code[x] - rival[x] for x in ("mean", "worst") if x in rival
    }
    below = [name for name, margin in margins.items() if margin <= 0]
    return f"**missed** ({'; '.join(below)})" if below else "met"


def drop(results: dict[str, Any], lost: str) -> str:
    """Returns the target of a network that is coded stage by stage."""
    most = DROPS
    if results["config"]["base_model"] == "lenet5":
        most = DROPS_OF_LENET5
    elif results["split"]["coded_fraction"] > NEARLY_ALL:
        most = DROPS_OF_ALL
    return _verdicts(results, lost, [most[lost]]) if lost in most else NONE


def frontier(results: dict[str, Any], lost: str) -> str:
    """Returns the target of a learned code of the frontier for the mean and the worst
    pattern; of a network that is coded stage by stage for the mean; `-` where it has
    none."""
    if results["config"]["stages"]:
        return drop(results, lost)
    k, r = results["split"]["k"], results["split"]["r"]
    has_one = code_name(results["config"], LEARNED) in FRONTIER_CODES
    if not has_one or (k, r) not in FRONTIER or int(lost) != r:
        return NONE
    return _verdicts(results, lost, FRONTIER[k, r], ", ")


def deep(results: dict[str, Any], lost: str) -> str:
    """Returns the target of a code on a deep network, `0.5 met / 0.8 **missed**`, on
    Fashion-MNIST that of the mean alone; nothing where it has none, or where the code
    costs more or codes less than its target allows."""
    dataset, model = results["dataset"], results["config"]["base_model"]
    if dataset == "fashion_mnist":
        return drop(results, lost)
    by_sizes = DEEP_OF_MOBILENET if model == "mobilenet" else DEEP
    sizes = results["split"]["k"], results["split"]["r"]
    most = by_sizes.get(sizes, {}).get(lost)
    if most is None or dataset not in DEEP_DATA:
        return ""
    dearest, least = OTHER_PRICES.get((dataset, model), PRICE)
    cost = read_cost(results, "code")
    if cost.price > dearest or cost.coded_flops / cost.whole_flops < least:
        return ""
    return _verdicts(results, lost, most)


def base(dataset: str, model: str, accuracy: float) -> str:
    """Returns the target of a base model, and whether its accuracy, in percent of two
    digits, meets it."""
    least = BASES.get((dataset, model))
    if least is None:
        return NONE
    return f"{least:g} {'met' if round(accuracy, 2) >= least else '**missed**'}"


def published(results: dict[str, Any], code: str, lost: str, decoded: float) -> str:
    """Returns the loss that a group code was published with, and whether the accuracy
    of the decoded answers, a fraction, reaches it."""
    most = PARM.get((results["dataset"], code, lost))
    base = results["base"]["test_accuracy"]
    return NONE if most is None else verdict(100 * (base - decoded), most)
