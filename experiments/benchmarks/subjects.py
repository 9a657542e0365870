"""The subjects of the benchmark: base models with codes, random images, and jobs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from coded_jax.inference import pipeline
from coded_jax.inference.pipeline import Examples
from coded_jax.runs.build import build_pipeline
from coded_jax.runs.config import Config
from coded_jax.types import Dataset, PyTree, Split

EXAMPLES = 4096
SMALL, COLOUR = (28, 28, 1), (32, 32, 3)
CODE: dict[str, Any] = {"k": 2, "r": 1, "recipe": "systematic"}
DEEP: dict[str, Any] = {**CODE, "base_width": 0.25, "grid": (1, 2)}
CONV: dict[str, Any] = {
    **CODE,
    "encoder_width": 32,
    "decoder_width": 128,
    "decoder_channels": "joint",
}
"""As in `flags/table5_k2_r1_conv.flags`."""
CONFIGS = {
    "lenet5_mlp": Config(encoder="mlp", decoder="mlp", **CODE),
    "lenet5_conv": Config(encoder="conv", decoder="conv", **CONV),
    "lenet5_cheap": Config(encoder="linear", decoder="low_rank", **CODE),
    "vgg16": Config(base_model="vgg16", stages=((1, 2), (3, 4)), **DEEP),
    "resnet18": Config(base_model="resnet18", stages=((1, 3), (4, 5)), **DEEP),
    "mobilenet": Config(base_model="mobilenet", stages=((1, 4), (5, 7)), **DEEP),
}
"""The codes, by the names of their subjects; stages are those of `flags/`, and deep
networks have the code that they get by default."""


Job = Callable[[int], object]
"""Makes a number of calls, and returns when the last has ended."""


class Prepared(NamedTuple):
    """A job that has been compiled.

    Attributes:
      job: does `steps` steps in every call.
      compile_seconds: what compiling it took; 0 where there is nothing to compile.
      steps: see `job`.
    """

    job: Job
    compile_seconds: float = 0.0
    steps: int = 1


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
    parts = dict.fromkeys(("train", "validation", "test"), split)
    scale = {"mean": (0.5,) * channels, "std": (0.29,) * channels}
    return Dataset(name="noise", classes=10, **parts, **scale)


def make_subject(
    name: str, examples: int = EXAMPLES, config: Config | None = None
) -> Subject:
    """Returns a code with random parameters, of `CONFIGS` or of another config, and so
    many random images."""
    config = config or CONFIGS[name]
    dataset = noise(SMALL if config.base_model == "lenet5" else COLOUR, examples)
    image, classes = dataset.image_shape, dataset.classes
    coded = build_pipeline(config, Examples(image, dataset.mean, dataset.std), classes)
    init = jax.jit(coded.base.init, static_argnums=(1, 2))
    frozen = init(jax.random.key(0), image, classes)
    params = jax.jit(coded.init)(jax.random.key(1))
    return Subject(name, config, dataset, coded, frozen=frozen, params=params)
