r"""Trains networks that compete with views: in one round, and with as much work each.

    python experiments/view_rivals.py --rival=smaller --flagfile=... --base_width=0.16 \
        --seed=0 --workdir=runs/rivals/smaller_0

Rivals are other networks than the one that views protect, of the same training images:

    smaller     a network with fewer maps, from nothing or distilled, whole on a device
    tiles       the network on tiles without a halo, its features averaged over them,
                trained on for them (BlockConv, arXiv 2105.08937; ADCNN, ICPP 2020)
    resolution  the network on the whole image made smaller, trained on for that
                (FixRes, arXiv 1906.06423)

`--teacher` is the folder of the base model whose answers are learned beside the labels.
The workdir gets `rival.json`, with the logits of each device on both parts in
`logits.npz`; `--members` averages those of several workdirs, of which any may be lost.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import flags

from coded_jax import data
from coded_jax.checks import require
from coded_jax.cli.command_line import command, run
from coded_jax.cli.experiment_flags import config_from_flags, places_from_flags
from coded_jax.codes import erasures
from coded_jax.data.augmentation import AUGMENTATIONS
from coded_jax.inference.costs import count_flops
from coded_jax.inference.pipeline import Examples, Pipeline, inputs_of
from coded_jax.models import make_base_model
from coded_jax.runs import kept_base, provenance
from coded_jax.runs.build import uncoded_pipeline, variable_shapes
from coded_jax.runs.config import Config
from coded_jax.runs.phases import BASE, regime_of, watching
from coded_jax.runs.workdir import checkpoint_folder, versions, write_atomically
from coded_jax.training import tasks
from coded_jax.training.loop import fit
from coded_jax.training.losses import answer_losses
from coded_jax.types import Dataset, PyTree

RIVALS = ("smaller", "tiles", "resolution")
RIVAL = flags.DEFINE_enum("rival", None, RIVALS, "what is trained, see above")
SIDE = flags.DEFINE_integer("side", None, "rows and columns that resolution has")
TILES = flags.DEFINE_integer("tiles", 2, "tiles along each axis", lower_bound=1)
TEACHER = flags.DEFINE_string("teacher", None, "folder of the base model that teaches")
SHARE = flags.DEFINE_float(
    "share", 0.5, "part of the loss that is the teacher's, with one", 0.0, 1.0
)
MEMBERS = flags.DEFINE_list("members", [], "workdirs whose logits are averaged")
CHUNK = 250
Devices = Callable[[jax.Array], jax.Array]
"""`images [B, H, W, C] -> [m, B, h, w, C]`, what each of m devices is given."""


def tiled(images: jax.Array, tiles: int) -> jax.Array:
    """Cuts images `[B, H, W, C]` into tiles without overlap, `[m, B, h, w, C]`."""
    rows = jnp.split(images, tiles, axis=1)
    return jnp.stack([x for row in rows for x in jnp.split(row, tiles, axis=2)])


def shrunk(images: jax.Array, side: int) -> jax.Array:
    """Makes images smaller, `[1, B, side, side, C]`, rounded to bytes."""
    shape = (len(images), side, side, images.shape[-1])
    x = jax.image.resize(images.astype(jnp.float32), shape, "linear", antialias=True)
    return jnp.clip(jnp.floor(x + 0.501), 0, 255).astype(images.dtype)[None]


@functools.partial(jax.jit, static_argnums=(0, 1))
def logits_of(
    pipeline: Pipeline, devices: Devices, variables: PyTree, images: jax.Array
) -> jax.Array:
    """Computes the logits of each device, `[m, B, classes]`."""
    base = pipeline.base
    return jnp.stack(
        [
            base.head(variables, base.f_conv(variables, inputs_of(pipeline, sent)))
            for sent in devices(images)
        ]
    )


def make_loss(
    pipeline: Pipeline, devices: Devices, config: Config, taught: bool
) -> Callable[..., Any]:
    """Returns the loss of the labels, and of the teacher's answers to the images."""
    train = pipeline.base.train
    assert train is not None

    def loss(
        params: PyTree, frozen: PyTree, batch: dict[str, Any], key: jax.Array
    ) -> Any:
        images = AUGMENTATIONS[config.augmentation](key, batch["images"])
        sent = devices(images)
        flat = sent.reshape(-1, *sent.shape[2:])
        logits, updated = train(params, inputs_of(pipeline, flat))
        logits = logits.reshape(*sent.shape[:2], -1).mean(axis=0)
        losses = answer_losses(logits, batch["labels"], config.label_smoothing)
        if taught:
            teacher = make_base_model(config.base_model, TEACHER_WIDTH[0])
            features = teacher.f_conv(frozen, inputs_of(pipeline, images))
            answers = jax.nn.softmax(teacher.head(frozen, features))
            own = optax.softmax_cross_entropy(logits, answers)
            losses = (1 - SHARE.value) * losses + SHARE.value * own
        return losses.mean(), updated

    return loss


TEACHER_WIDTH = [1.0]


@command()
def main(argv: list[str]) -> None:
    config, places = config_from_flags(), places_from_flags()
    folder = Path(places.workdir or ".").absolute()
    folder.mkdir(parents=True, exist_ok=True)
    dataset = data.load(config.dataset, places.data_dir, config.image_size)
    if MEMBERS.value:
        record = _average([Path(x) for x in MEMBERS.value])
    else:
        require("rival", RIVAL.value, RIVAL.value is not None, f"one of {RIVALS}")
        record = _train(config, dataset, folder, places.base_dir)
    content = {
        "rival": RIVAL.value or "members",
        **record,
        "config": config.to_json(),
        "provenance": provenance.collect(
            "python experiments/view_rivals.py", config.to_flags(), jax.devices()
        ),
        "versions": versions(),
    }
    write_atomically(folder / "rival.json", json.dumps(content, indent=1) + "\n")
    print(json.dumps({x: record[x] for x in ("work", "summary")}))


def _train(
    config: Config, dataset: Dataset, folder: Path, start_folder: Any
) -> dict[str, Any]:
    examples = Examples(dataset.image_shape, dataset.mean, dataset.std)
    base = make_base_model(config.base_model, config.base_width)
    pipeline = uncoded_pipeline(config, examples, None, base)
    devices: Devices = {
        "smaller": lambda images: images[None],
        "tiles": functools.partial(tiled, tiles=TILES.value),
        "resolution": functools.partial(shrunk, side=SIDE.value),
    }[str(RIVAL.value)]
    teacher = kept_base.read(Path(TEACHER.value)) if TEACHER.value else None
    if TEACHER.value:
        own = json.loads((Path(TEACHER.value) / kept_base.RECORD).read_text())
        TEACHER_WIDTH[0] = own["network"]["width"]
    start = None
    if start_folder is not None:
        start = kept_base.read(Path(start_folder)).variables
    regime = regime_of(config, BASE)
    total = len(dataset.train.labels)
    task = tasks.base_task(pipeline, dataset, regime.optimizer(total), start=start)
    loss = make_loss(pipeline, devices, config, teacher is not None)
    validation = dataset.validation

    def score(variables: PyTree) -> dict[str, float]:
        logits = _logits(pipeline, devices, variables, validation.images).mean(axis=0)
        return {"score": float((logits.argmax(-1) == validation.labels).mean())}

    task = task._replace(loss=loss, score=score)
    arrays = tasks.device_arrays(None, dataset.train)
    frozen = teacher.variables if teacher else {}
    with watching(folder) as watch:
        with watch.log(BASE, regime, total) as observer:
            fitted = fit(
                task,
                frozen,
                arrays,
                jax.random.fold_in(jax.random.key(config.seed), 0),
                regime,
                directory=checkpoint_folder(folder, BASE),
                observer=observer,
                stop=watch.stop,
            )
    kept_base.save_variables(folder, fitted.params)
    shapes = jax.ShapeDtypeStruct((1, *dataset.image_shape), "uint8")
    sent = jax.eval_shape(devices, shapes).shape[2:]
    variables = variable_shapes(base, dataset.image_shape, dataset.classes)
    flops = count_flops(base.f_conv, variables, sent)
    logits = {
        part: _logits(pipeline, devices, fitted.params, getattr(dataset, part).images)
        for part in ("validation", "test")
    }
    labels = {part: getattr(dataset, part).labels for part in logits}
    of_labels = {f"labels_{part}": x for part, x in labels.items()}
    np.savez(folder / "logits.npz", **logits, **of_labels)
    return {
        "flops": flops,
        "work": flops,
        "seconds": fitted.seconds,
        "steps": fitted.steps,
        "validation_accuracy": fitted.score,
        "taught": TEACHER.value is not None,
        "summary": _summary(logits["test"], labels["test"]),
    }


def _logits(
    pipeline: Pipeline, devices: Devices, variables: PyTree, images: np.ndarray
) -> np.ndarray:
    every = []
    for i in range(0, len(images), CHUNK):
        some = np.concatenate([images[i : i + CHUNK], images[:CHUNK]])[:CHUNK]
        own = np.asarray(logits_of(pipeline, devices, variables, some))
        every.append(own[:, : len(images) - i])
    return np.concatenate(every, axis=1)


def _summary(logits: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Returns mean and worst accuracy by lost devices: the mean of what arrived."""
    summary, count = {}, len(logits)
    for l in range(min(3, count)):
        accuracies = [
            float((np.delete(logits, p, 0).mean(0).argmax(-1) == labels).mean())
            for p in map(list, erasures.patterns(count, l))
        ]
        summary[str(l)] = {"mean": float(np.mean(accuracies)), "worst": min(accuracies)}
    return summary


def _average(folders: Sequence[Path]) -> dict[str, Any]:
    """Returns the record of several networks, each on a device, averaged."""
    stored = [np.load(folder / "logits.npz") for folder in folders]
    records = [json.loads((folder / "rival.json").read_text()) for folder in folders]
    probabilities = [jax.nn.log_softmax(x["test"], axis=-1) for x in stored]
    logits = np.concatenate([np.asarray(x) for x in probabilities])
    return {
        "work": max(record["work"] for record in records),
        "flops": max(record["flops"] for record in records),
        "seconds": sum(record["seconds"] for record in records),
        "members": [record["provenance"]["flags"] for record in records],
        "summary": _summary(logits, stored[0]["labels_test"]),
    }


if __name__ == "__main__":
    run(main)
