"""Tables of programs that were compiled for described machines, for documents."""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

import jax

from coded_jax.devices.chips import CHIPS, Chip
from coded_jax.devices.compiled import bound
from coded_jax.devices.topologies import devices_of_host
from coded_jax.inference import costs
from coded_jax.report.program_table import LIMITS, collectives_text, short
from coded_jax.runs.build import build_pipeline
from coded_jax.runs.config import Config
from coded_jax.studies.programs import Compiled
from tables import markdown, stored

FOLDER, MESHES = "compiled", "compiled_meshes"
HEADINGS = (
    "program",
    "mesh",
    "Mflop per image",
    "kB of HBM per image",
    "MB held (of HBM)",
    "collectives, kB sent",
    "fusions",
    "compiled in",
    "bound, µs per image",
)


def chip_of_target(target: str) -> Chip:
    """Returns the chip of a target, as `v5e:2x4`."""
    return CHIPS[target.partition(":")[0]]


def outcomes_of(content: dict[str, Any]) -> list[Compiled]:
    """Returns the programs of a stored result."""
    return [Compiled.from_json(fields) for fields in content["programs"]]


def subject_of(content: dict[str, Any]) -> str:
    """Returns network, code and precision of a stored result, as `vgg16, k=2 r=1`."""
    config = content["config"]
    code = f"{config['encoder']} / {config['decoder']}"
    return (
        f"{config['base_model']}, k={config['k']} r={config['r']}, {code}, "
        f"{config['precision']}"
    )


def row_of(outcome: Compiled, chip: Chip) -> list[str]:
    """Returns the row of a program, its figures over the images that it computes."""
    mesh, figures = "x".join(map(str, outcome.mesh)), outcome.figures
    if figures is None:
        return [outcome.name, mesh, f"refused: {outcome.refusal}", *[""] * 6]
    images, least = outcome.images, bound(figures, chip, outcome.dtype)
    held = f"{short(figures.needed / 1e6)} ({100 * figures.needed / chip.memory:.2g} %)"
    return [
        outcome.name,
        mesh,
        short(figures.operations / 1e6 / images),
        short(figures.moved / 1e3 / images),
        held,
        collectives_text(figures).replace("\n", ", "),
        str(figures.fusions),
        f"{outcome.seconds:.1f} s",
        f"{short(1e6 * least.seconds / images)} ({LIMITS[least.name]})",
    ]


def section() -> str:
    """Returns the tables of all targets, each to be unfolded."""
    by_target: dict[str, list[dict[str, Any]]] = {}
    for content in stored.contents(FOLDER):
        by_target.setdefault(content["target"], []).append(content)
    ordered = sorted(
        by_target,
        key=lambda target: (list(CHIPS).index(target.partition(":")[0]), target),
    )
    return "\n\n".join(_target_text(target, by_target[target]) for target in ordered)


def _target_text(target: str, contents: Iterable[dict[str, Any]]) -> str:
    chip, texts = chip_of_target(target), []
    for content in contents:
        rows = [row_of(outcome, chip) for outcome in outcomes_of(content)]
        texts.append(f"**{subject_of(content)}** ({_origin_text(content)})")
        texts.append(markdown.table(HEADINGS, rows))
        texts.append(f"```text\n{content['command']}\n```")
    body = "\n\n".join(texts)
    return f":::{{dropdown}} {target}\n{body}\n:::"


def _origin_text(content: dict[str, Any]) -> str:
    origin, versions = stored.origin_of(content), content["versions"]
    compilers = [x for x in versions if x == "libtpu" or x.startswith("jax-cuda")]
    names = ["jax", *compilers]
    compiled = ", ".join(f"{name} {versions[name]}" for name in names)
    return f"version {origin.version}, commit {origin.commit}, {compiled}"


def summary() -> str:
    """Returns a row for each stored result: what compiled, its largest inference."""
    headings = (
        "machine",
        "experiment",
        "programs compiled",
        "mesh",
        "largest batch",
        "coded, µs per image at least",
        "uncoded, the same machine",
        "most memory (of HBM)",
    )
    rows = [_summary_row(content) for content in stored.contents(FOLDER)]
    return markdown.table(headings, sorted(rows))


def _summary_row(content: dict[str, Any]) -> list[str]:
    outcomes, chip = outcomes_of(content), chip_of_target(content["target"])
    made = [(x, x.figures) for x in outcomes if x.figures]
    coded, uncoded = (_largest(outcomes, kind) for kind in ("coded", "uncoded"))
    most = max(figures.needed for _, figures in made)
    return [
        content["target"],
        subject_of(content),
        f"{len(made)} of {len(outcomes)}",
        "x".join(map(str, coded.mesh)),
        str(coded.images),
        _bound_text(coded, chip),
        _bound_text(uncoded, chip),
        f"{most / 1e6:,.0f} MB ({100 * most / chip.memory:.2g} %)",
    ]


def _largest(outcomes: Sequence[Compiled], kind: str) -> Compiled:
    """Returns the inference of the largest batch, `coded` or `uncoded`."""
    named = [x for x in outcomes if x.name.startswith(f"{kind} inference")]
    return max(named, key=lambda outcome: outcome.images)


def _bound_text(outcome: Compiled, chip: Chip) -> str:
    if outcome.figures is None:
        return "refused"
    least = bound(outcome.figures, chip, outcome.dtype)
    return f"{short(1e6 * least.seconds / outcome.images)} ({LIMITS[least.name]})"


def meshes_section() -> str:
    """Returns the coded inference of six pieces on eight chips, by mesh."""
    texts = []
    for content in stored.contents(MESHES):
        chip = chip_of_target(content["target"])
        rows = [row_of(outcome, chip) for outcome in outcomes_of(content)]
        texts.append(f"**{content['target']}, {subject_of(content)}**")
        texts.append(markdown.table(HEADINGS, rows))
        texts.append(f"```text\n{content['command']}\n```")
    return "\n\n".join(texts)


def mended_section() -> str:
    """Returns what the programs were before and after what they showed was mended."""
    history = stored.history_of(FOLDER)
    before = (
        {}
        if history is None
        else {
            _key(content): content
            for path in sorted(history.glob("*.json"))
            for content in [json.loads(path.read_text())]
        }
    )
    headings = (
        "machine",
        "program",
        "Mflop per image needed",
        "Mflop per image",
        "kB of HBM per image at least",
        "kB of HBM per image",
        "MB held",
        "estimated cycles per image",
    )
    rows = []
    for content in stored.contents(FOLDER):
        if (old := before.get(_key(content))) is None:
            continue
        earlier = {x.name: x for x in outcomes_of(old)}
        for outcome in outcomes_of(content):
            if outcome.name in earlier:
                rows.append(_mended_row(content, earlier[outcome.name], outcome))
    return markdown.table(headings, rows)


def _key(content: dict[str, Any]) -> tuple[str, str]:
    return content["target"], subject_of(content)


def _mended_row(content: dict[str, Any], old: Compiled, new: Compiled) -> list[str]:
    network, figures = content["config"]["base_model"], new.figures
    changes = [_change(old, new, *measure) for measure in MEASURES]
    least = "-"
    if figures is not None:  # each argument read once, each output written once
        ends = figures.memory["arguments"] + figures.memory["outputs"]
        least = short(ends / 1e3 / new.images)
    needed = needed_operations(content) / math.prod(new.mesh)
    return [
        content["target"],
        f"{network}, {new.name}",
        short(needed / 1e6),
        changes[0],
        least,
        *changes[1:],
    ]


def needed_operations(content: dict[str, Any]) -> float:
    """Returns the operations of a coded inference with losses, for one image: of the
    client and of n pieces in each stage, as `inference.costs` counts them."""
    config = Config.from_json(content["config"])
    shape = re.search(r"--image_shape=(\d+)x(\d+)x(\d+)", content["command"])
    height, width, channels = map(int, shape.groups())  # type: ignore
    image = (height, width, channels)
    statistics = ((0.5,) * channels, (0.25,) * channels)
    pipeline = build_pipeline(config, image, 10, *statistics)
    init = lambda key: pipeline.base.init(key, image, 10)
    variables = jax.eval_shape(init, jax.random.key(0))
    total = costs.cost_of(pipeline, variables, image)
    return total.client_total + config.n * total.device_flops


MEASURES = (
    (lambda figures: figures.operations, 1e6, True),
    (lambda figures: figures.moved, 1e3, True),
    (lambda figures: figures.needed, 1e6, False),
    (lambda figures: figures.cycles, 1, True),
)


def _change(old: Compiled, new: Compiled, of: Any, scale: float, by_image: bool) -> str:
    def text(outcome: Compiled) -> str:
        value = None if outcome.figures is None else of(outcome.figures)
        images = outcome.images if by_image else 1
        return "-" if value is None else short(value / scale / images)

    return f"{text(old)} → {text(new)}"


def first_k_section() -> str:
    """Returns the bounds of one program on all chips, and of one on each chip."""
    headings = (
        "machine",
        "experiment",
        "images",
        "one program",
        "encode",
        "queries",
        "piece",
        "shares",
        "decode",
        "a program per chip",
    )
    rows = []
    for content in stored.contents(FOLDER):
        rows += _first_k_rows(content)
    return markdown.table(headings, rows)


def _first_k_rows(content: dict[str, Any]) -> list[list[str]]:
    """Returns a row for each batch, in microseconds; none where one host has not all
    devices, since the local engine has those of its own host."""
    chip, outcomes = chip_of_target(content["target"]), outcomes_of(content)
    k, n = content["config"]["k"], content["config"]["k"] + content["config"]["r"]
    by_name = {x.name: x for x in outcomes}
    stages = range(1, len(content["exchanged"]) + 1)
    rows = []
    for outcome in outcomes:
        devices = math.prod(outcome.mesh)
        whole = devices == devices_of_host(content["target"], devices) > 1
        if not (outcome.name.startswith("coded inference") and whole):
            continue
        # Piece i is on device i mod devices; the front one, 0, encodes and decodes.
        most, of_front = -(-n // devices), len(range(0, n, devices))
        seconds = functools.partial(_of_parts, by_name, chip, outcome.images)
        encode = seconds(["encoding"])
        piece = most * seconds([f"a piece of stage {i}" for i in stages])
        decode = seconds([f"decoding stage {i}" for i in stages])
        queries = sum(query for query, _ in content["exchanged"]) * (n - of_front)
        shares = sum(share for _, share in content["exchanged"]) * max(k - of_front, 0)
        sent, returned = (
            outcome.images * size / chip.link_bandwidth for size in (queries, shares)
        )
        times = (encode, sent, piece, returned, decode)
        cells = [short(1e6 * x) for x in (_seconds(outcome, chip), *times, sum(times))]
        about = (content["target"], subject_of(content), str(outcome.images))
        rows.append([*about, *cells])
    return rows


def _of_parts(
    by_name: dict[str, Compiled], chip: Chip, images: int, parts: Iterable[str]
) -> float:
    """Returns the sum of the bounds of programs of the local engine, in seconds."""
    return sum(
        _seconds(by_name[f"local engine, {part} of {images}"], chip) for part in parts
    )


def _seconds(outcome: Compiled, chip: Chip) -> float:
    if outcome.figures is None:
        return float("nan")
    return bound(outcome.figures, chip, outcome.dtype).seconds
