"""Settings that are out of range are refused in one line that names them."""

import dataclasses
import json

import pytest

from coded_jax.inference.pipeline import Examples
from coded_jax.runs.build import build_pipeline
from coded_jax.runs.config import RETIRED, Config
from coded_jax.types import BaseModel
from tests.errors import refused


@pytest.mark.parametrize(
    "field, values",
    [
        ("dataset", ["mnits"]),
        ("k", [1, 16]),
        ("r", [0, 11]),
        ("l", [2, -1]),
        ("grid", [(2, 2), (2,), (-1, -2)]),
        ("encoder_width", [0, 10**12]),
        ("dilations", [(), (1, 0), (10**20,)]),
        ("epochs", [0, 1e300, float("nan")]),
        ("seed", [-1]),
        ("stages", [(), ((0, 1),), ((2, 1),), ((1, 2), (2, 3)), ((1, 2, 3),)]),
        ("other_stage_losses", [("later", "drawn"), ("later", "later"), ("later",)]),
        ("beyond", [1.0]),
        ("base_width", [0, 17, float("nan")]),
        ("pattern_weights", [(((0, 1), 2.0),), (((2,), 2.0),), ((0,), 2.0), 3]),
    ],
)
def test_out_of_range(field, values):
    for value in values:
        with refused(field):
            Config(**{field: value})


def test_survives_json():
    stages = ((1, 1), (3, 4))
    config = Config(k=4, grid=(2, 2), dilations=(1, 2), l=0, stages=stages)
    assert (config.n, config.most_lost, config.splitting.grid_of(1)) == (5, 0, (2, 2))
    loaded = json.loads(json.dumps(dataclasses.asdict(config)))
    assert Config.from_json(loaded) == config
    assert Config.from_json(loaded | RETIRED) == config
    with refused("fixed_sums"):
        Config.from_json(loaded | {"fixed_sums": True})


@pytest.mark.parametrize(
    "stages, coded, whole",
    [
        (None, [(1, 9)], [None, None]),
        (((1, 9),), [(1, 9)], [None, None]),
        (((1, 2), (3, 5)), [(1, 2), (3, 5)], [None, None, (6, 9)]),
        (((2, 2), (4, 9)), [(2, 2), (4, 9)], [(1, 1), (3, 3), None]),
    ],
)
def test_stages_have_every_block_once(stages, coded, whole):
    config = Config(dataset="own", base_model="own", stages=stages)
    blocks = (lambda variables, x: x,) * 9
    base = BaseModel(lambda *args: {}, blocks, lambda variables, x: x)
    pipeline = build_pipeline(
        config, Examples((8, 8, 1), (0.5,), (0.5,)), 10, base=base
    )
    assert [stage.blocks for stage in pipeline.stages] == coded
    segments = [stage.before for stage in pipeline.stages] + [pipeline.after]
    assert [segment.blocks for segment in segments] == whole


def test_base_has_what_the_base_model_depends_on():
    own = {"batch_size": 8, "learning_rate": 0.2, "weight_decay": 0.1}
    config = Config(base_model="resnet18", base_width=0.5, **own)
    base = config.base
    assert (base.base_batch_size, base.base_learning_rate) == (8, 0.2)
    assert base.base == base
    of_code = {"k": 4, "r": 2, "l": 0, "grid": (2, 2), "code": "mds", "seeds": 2}
    assert dataclasses.replace(config, **of_code, tried=3, epochs=7).base == base
    changes = {
        "dataset": "cifar100",
        "augmentation": "shift",
        "label_smoothing": 0.2,
        "batch_size": 4,
        "learning_rate": 0.1,
        "weight_decay": 0.2,
        "precision": "bfloat16",
        "seed": 5,
    }
    for name, value in changes.items():
        assert dataclasses.replace(config, **{name: value}).base != base, name
