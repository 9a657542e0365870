r"""Shows how an experiment's images are split: a table, and a picture of the pieces.

    python -m coded_jax plan --flagfile=table5_k4_r2.flags
    python -m coded_jax plan --base_model=vgg16 --stages=1-2,3-4 --k=4 --r=2 \
        --image_shape=32x32x3 --picture=pieces.png

It takes the flags and flagfiles of `run`. Nothing is trained.
"""

from __future__ import annotations

import jax
import numpy as np
from absl import flags
from rich.console import Console

from coded_jax import data
from coded_jax.checks import require
from coded_jax.cli.command_line import command, integers
from coded_jax.cli.experiment_flags import config_from_flags
from coded_jax.inference import costs
from coded_jax.report import plan_picture, plan_table
from coded_jax.runs import build

IMAGE_SHAPE = flags.DEFINE_string(
    "image_shape", None, "HxWxC, as 32x32x3; that of the data set if not given"
)
CLASSES = flags.DEFINE_integer(
    "classes", 10, "of a model for --image_shape", lower_bound=1
)
PICTURE = flags.DEFINE_string("picture", "plan.png", "file of the picture; '' for none")
for name in (
    "workdir base_dir devices mesh compilation_cache coordinator processes process"
).split():
    flags.DEFINE_string(name, None, "not used; flagfiles of `run` may have it")
DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "folder of prepared TFDS data; TFDS_DATA_DIR if not given"
)


def example() -> tuple[np.ndarray, int]:
    """Returns an image uint8 `[H, W, C]`, and the number of classes.

    Raises:
      ValueError, OSError, ImportError: there is no such image or data set.
    """
    if IMAGE_SHAPE.value is None:
        dataset = data.load(flags.FLAGS.dataset, DATA_DIR.value)
        return dataset.test.images[0], dataset.classes
    shape = integers("image_shape", IMAGE_SHAPE.value.split("x"))
    accepted = len(shape) == 3 and min(shape) >= 1
    require("image_shape", IMAGE_SHAPE.value, accepted, "HxWxC")
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    radius = np.hypot(rows - shape[0] / 2, columns - shape[1] / 2) / max(shape[:2])
    rings = (127 + 100 * np.cos(30 * radius)).astype(np.uint8)
    return np.repeat(rings[..., None], shape[2], axis=2), CLASSES.value


@command()
def main(argv: list[str]) -> None:
    """Prints the plan of the flags, and draws its pieces."""
    config = config_from_flags()
    if config.split == "group":
        raise ValueError(
            "split: 'group' given, 'image' accepted: a group is not split, each "
            "device computes a whole image"
        )
    image, classes = example()
    channels = image.shape[-1]
    pipeline = build.build_pipeline(
        config, image.shape, classes, (0.5,) * channels, (0.25,) * channels
    )
    variables = jax.eval_shape(
        lambda key: pipeline.base.init(key, image.shape, classes), jax.random.key(0)
    )
    stages = costs.stage_costs(pipeline, variables, image.shape)
    console = Console()
    console.print(plan_table.table(stages, config.r), highlight=False)
    if not PICTURE.value:
        return
    try:
        plan_picture.draw(PICTURE.value, image, pipeline.stages[0].plan)
    except (ImportError, OSError, ValueError) as error:
        raise ValueError(f"picture: {error}") from error
    console.print(f"the pieces over an image: {PICTURE.value}", highlight=False)
