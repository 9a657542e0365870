"""The subjects of the benchmark: base models with codes, and random images for them."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np

from coded_jax.devices import placement
from coded_jax.devices.meshes import make_mesh
from coded_jax.inference import pipeline
from coded_jax.runs.build import build_pipeline
from coded_jax.runs.config import Config
from coded_jax.types import Dataset, PyTree, Split

EXAMPLES = 4096
SMALL, COLOUR = (28, 28, 1), (32, 32, 3)
CONV: dict[str, Any] = {
    "encoder_width": 32,
    "decoder_width": 128,
    "decoder_channels": "joint",
}
"""As in `flags/table5_k2_r1_conv.flags`."""


def _lenet5(encoder: str, decoder: str, **settings: Any) -> Config:
    return Config(
        k=2, r=1, recipe="systematic", encoder=encoder, decoder=decoder, **settings
    )


def _deep(base_model: str, *stages: tuple[int, int]) -> Config:
    """Returns a deep network with the code that it gets by default."""
    return Config(
        k=2,
        r=1,
        recipe="systematic",
        base_model=base_model,
        base_width=0.25,
        stages=stages,
        grid=(1, 2),
    )


CONFIGS = {
    "lenet5_mlp": _lenet5("mlp", "mlp"),
    "lenet5_conv": _lenet5("conv", "conv", **CONV),
    "lenet5_cheap": _lenet5("linear", "low_rank"),
    "vgg16": _deep("vgg16", (1, 2), (3, 4)),
    "resnet18": _deep("resnet18", (1, 3), (4, 5)),
    "mobilenet": _deep("mobilenet", (1, 4), (5, 7)),
}
"""The codes, by the names of their subjects; stages are those of `flags/`."""


class Subject(NamedTuple):
    """One code with random parameters, ready to run."""

    name: str
    config: Config
    dataset: Dataset
    pipeline: pipeline.Pipeline
    frozen: PyTree
    params: PyTree


def noise(shape: tuple[int, int, int], examples: int) -> Dataset:
    """Returns random images `(H, W, C)`: speed does not depend on what they show."""
    random = np.random.default_rng(0)
    pixels = random.integers(256, size=(examples, *shape), dtype=np.uint8)
    split = Split(pixels, random.integers(10, size=examples).astype(np.int32))
    channels = shape[-1]
    return Dataset(
        "noise", 10, split, split, split, (0.5,) * channels, (0.29,) * channels
    )


def make_subject(
    name: str,
    examples: int = EXAMPLES,
    devices: int | None = None,
    config: Config | None = None,
) -> Subject:
    """Returns a code with random parameters.

    Args:
      name: one of `CONFIGS`.
      examples: random images.
      devices: how many; without a mesh if None.
      config: in place of that of `CONFIGS`.

    Raises:
      ValueError: there are fewer devices.
    """
    config = config or CONFIGS[name]
    dataset = noise(SMALL if config.base_model == "lenet5" else COLOUR, examples)
    image, classes = dataset.image_shape, dataset.classes
    mesh = make_mesh(config.n, devices) if devices else None
    coded = build_pipeline(config, image, classes, dataset.mean, dataset.std, mesh)
    init = jax.jit(coded.base.init, static_argnums=(1, 2))
    frozen = init(jax.random.key(0), image, classes)
    params = jax.jit(coded.init)(jax.random.key(1))
    frozen, params = placement.put_replicated(mesh, (frozen, params))
    return Subject(name, config, dataset, coded, frozen, params)


def sizes(s: Subject) -> dict[str, Any]:
    """Returns the sizes that another framework needs; see `torch_baseline.Job`."""
    config = s.config
    stages = []
    for stage in s.pipeline.stages:
        plan = stage.plan
        stages.append(
            {
                "blocks": stage.blocks,
                "starts": (plan.rows.starts, plan.columns.starts),
                "cuts": (plan.rows.cuts, plan.columns.cuts),
                "piece": plan.piece_shape,
                "share": plan.share_shape,
                "features": (plan.rows.out, plan.columns.out),
            }
        )
    return {
        "network": config.base_model,
        "width": config.base_width,
        "image": s.dataset.image_shape,
        "classes": s.dataset.classes,
        "mean": s.dataset.mean,
        "std": s.dataset.std,
        "r": config.r,
        "stages": stages,
        "encoder": config.encoder,
        "decoder": config.decoder,
        "widths": (config.encoder_width, config.decoder_width),
    }
