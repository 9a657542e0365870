"""Settings that are out of range are refused in one line that names them."""

import dataclasses
import json

import numpy as np
import pytest

from coded_jax.runs.build import build_pipeline
from coded_jax.runs.config import Config
from coded_jax.types import BaseModel


@pytest.mark.parametrize(
    "field, value, accepted",
    [
        ("dataset", "mnits", "mnist_5k"),
        ("base_model", "lenet6", "lenet5"),
        ("recipe", "papr", "systematic"),
        ("encoder", "cnn", "conv"),
        ("decoder", "MLP", "mlp"),
        ("decoder_channels", "both", "independent"),
        ("k", 1, r"2\.\.11"),
        ("k", 16, r"2\.\.11"),
        ("r", 0, r"1\.\.10"),
        ("r", 11, r"1\.\.10"),
        ("l", 2, r"0\.\.r, here 0\.\.1"),
        ("l", -1, "0 or more"),
        ("grid", (2, 2), "product of k=2"),
        ("grid", (2,), "rows x columns"),
        ("grid", (-1, -2), "rows x columns"),
        ("least_spared", 0.1, "0 with split=image"),
        ("least_spared", 1.0, "from 0 on, below 1"),
        ("parity_pieces", "montage", "sums or smaller with code=learned"),
        ("encoder_width", 0, r"1\.\.65536"),
        ("decoder_width", 10**12, r"1\.\.65536"),
        ("dilations", (), r"1\.\.1024"),
        ("dilations", (1, 0), r"1\.\.1024"),
        ("dilations", (10**20,), r"1\.\.1024"),
        ("decoder_dilations", (), r"1\.\.1024"),
        ("decoder_dilations", (1, 0), r"1\.\.1024"),
        ("kernel", 2, r"an odd number in 1\.\.31"),
        ("kernel", -1, r"an odd number in 1\.\.31"),
        ("kernel", 33, r"an odd number in 1\.\.31"),
        ("train_images", 0, "1 or more"),
        ("epochs", 0, "more than 0"),
        ("epochs", 1e300, "at most"),
        ("base_epochs", float("nan"), "more than 0"),
        ("learning_rate", float("inf"), "more than 0"),
        ("weight_decay", -1e-5, "0 or more"),
        ("batch_size", 0, "1 or more"),
        ("seed", -1, r"0\.\.4294967295"),
        ("stages", (), "ascending first-last blocks from 1 on"),
        ("stages", ((0, 1),), "ascending"),
        ("stages", ((2, 1),), "ascending"),
        ("stages", ((1, 2), (2, 3)), "ascending"),
        ("stages", ((3, 4), (1, 2)), "ascending"),
        ("stages", ((1, 2, 3),), "ascending"),
        ("stage_training", "both", "per_stage"),
        ("stage_losses", "drawn", "per_stage"),
        ("other_stage_losses", ("later", "drawn"), "per_stage"),
        ("other_stage_losses", ("later", "later"), "each once"),
        ("other_stage_losses", ("later",), "with several stages"),
        ("beyond", 1.0, "0 or more, below 1"),
        ("focus", -1.0, "0 or more"),
        ("base_width", 0, "more than 0 and at most 16"),
        ("base_width", 17, "at most 16"),
        ("base_width", float("nan"), "more than 0"),
        ("label_smoothing", 1.0, "0 or more, below 1"),
        ("label_smoothing", -0.1, "0 or more"),
        ("augmentation", "flip", "flip_shift"),
        ("base_schedule", "linear", "cosine"),
        ("base_batch_size", 0, "1 or more"),
        ("base_learning_rate", 0.0, "more than 0"),
        ("pattern_weights", (((0, 1), 2.0),), "at most 1 of 3 results"),
        ("pattern_weights", (((2,), 2.0),), "that lose a data piece"),
        ("pattern_weights", (((0,), 0.0),), r"weights of 1e-6\.\.1e6"),
        ("pattern_weights", (((0,), 1e300),), r"1e-6\.\.1e6"),
        ("pattern_weights", (((0,), float("nan")),), r"1e-6\.\.1e6"),
        ("pattern_weights", (((0,), 2.0), ((0,), 3.0)), "each once"),
        ("pattern_weights", ((0,), 2.0), "patterns and weights as"),
        ("pattern_weights", {(0,): 2.0}, "patterns and weights as"),
        ("pattern_weights", (((0,), "2"),), "patterns and weights as"),
        ("pattern_weights", 3, "patterns and weights as"),
    ],
)
def test_out_of_range(field, value, accepted):
    with pytest.raises(ValueError, match=rf"^{field}: .* given, .*{accepted}") as error:
        Config(**{field: value})
    assert repr(value) in str(error.value) and "\n" not in str(error.value)


def test_values_before_a_relu_are_not_all_positive():
    with pytest.raises(ValueError, match="^nonnegative: True given, False with preact"):
        Config(base_model="vgg16", preactivations=True, nonnegative=True)


def test_defaults_that_depend_on_others():
    config = Config(k=4, r=2)
    assert (config.n, config.most_lost, config.pieces) == (6, 2, (4, 1))
    assert Config(k=4, r=2, l=0, grid=(2, 2)).most_lost == 0


def test_survives_json():
    stages = ((1, 1), (3, 4))
    config = Config(k=4, grid=(2, 2), dilations=(1, 2), l=0, stages=stages)
    assert (
        Config.from_json(json.loads(json.dumps(dataclasses.asdict(config)))) == config
    )


def test_numbers_of_numpy_are_those_of_python():
    numbers = {"k": 4, "batch_size": 16, "learning_rate": 0.5, "grid": (2, 2)}
    config = Config(**{name: np.asarray(value) for name, value in numbers.items()})
    assert config == Config(**numbers)
    assert json.dumps(config.to_json()) == json.dumps(Config(**numbers).to_json())


def test_flags_leave_out_what_is_unset():
    flags = Config(k=4, grid=(2, 2), epochs=0.5).to_flags()
    assert flags["grid"] == "2x2" and flags["epochs"] == "0.5"
    assert flags["dilations"] == "1,1,2,4,8,1"
    assert not {"l", "encoder_width", "decoder_channels"} & flags.keys()


def test_flags_of_stages():
    assert Config(stages=((1, 1), (3, 4))).to_flags()["stages"] == "1-1,3-4"
    assert "stages" not in Config().to_flags()


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
    pipeline = build_pipeline(config, (8, 8, 1), 10, (0.5,), (0.5,), base=base)
    assert [stage.blocks for stage in pipeline.stages] == coded
    segments = [stage.before for stage in pipeline.stages] + [pipeline.after]
    assert [segment.blocks for segment in segments] == whole


def test_blocks_that_a_model_has_not_are_refused():
    config = Config(base_model="resnet18", stages=((1, 2), (3, 10)))
    with pytest.raises(ValueError, match=r"^stages: block 10 given, 1\.\.9 .*resnet18"):
        build_pipeline(config, (28, 28, 1), 10, (0.1,), (0.3,))
    config = Config(base_model="vgg16", base_width=1 / 16, stages=((1, 2), (3, 13)))
    with pytest.raises(
        ValueError, match=r"^k: .* \(blocks 3-13 of 1-13; --stages"
    ) as e:
        build_pipeline(config, (28, 28, 1), 10, (0.1,), (0.3,))
    assert "\n" not in str(e.value)


def test_base_has_what_the_base_model_depends_on():
    config = Config(
        dataset="cifar10",
        base_model="resnet18",
        base_width=0.5,
        base_epochs=2,
        seed=4,
        weight_decay=0.1,
        augmentation="shift",
        label_smoothing=0.1,
        precision="bfloat16",
        batch_size=8,
        learning_rate=0.2,
    )
    base = config.base
    assert (base.base_batch_size, base.base_learning_rate) == (8, 0.2)
    assert base.base == base
    others = {
        "k": 4,
        "r": 2,
        "l": 0,
        "stages": ((1, 1),),
        "stage_training": "per_stage",
        "stage_losses": "per_stage",
        "grid": (2, 2),
        "recipe": "systematic",
        "encoder": "conv",
        "decoder": "conv",
        "encoder_width": 3,
        "decoder_width": 4,
        "dilations": (1, 2),
        "decoder_dilations": (2, 4),
        "kernel": 5,
        "train_images": 100,
        "decoder_channels": "joint",
        "code": "mds",
        "baselines": ("uncoded",),
        "seeds": 2,
        "tried": 3,
        "nonnegative": True,
        "code_augmentation": "shift",
        "evaluated": "validation",
        "epochs": 7,
        "products": "bfloat16",
    }
    apart = {
        "distillation": 0.5,
        "supervision": 0.5,
        "sums": "power",
        "parity_start": "anew",
        "draws": "patterns",
        "pattern_weights": (((0,), 2.0),),
        "tail": "tuned",
        "tail_step": 0.2,
        "parity_moves": True,
        "preactivations": True,
        "halo": 1,
        "ends": "tail",
        "beyond": 0.1,
        "feature_weights": "sensitivity",
        "returned": "outputs",
        "focus": 1.0,
    }  # not with all of the others
    assert dataclasses.replace(config, **others).base == base
    assert dataclasses.replace(config, **apart).base == base
    chain = {"stages": ((1, 1), (2, 2)), "other_stage_losses": ("later",)}
    chain |= {"parity_pieces": "smaller", "parity_goes_on": True}
    chain |= {"stage_grids": ((1, 2), (2, 1))}
    assert dataclasses.replace(config, **chain).base == base
    sums = {"recipe": "systematic", "fixed_sums": True, "decoder_start": "ridge"}
    assert dataclasses.replace(config, **sums).base == base
    montage = {"code": "parity_model", "split": "group", "parity_pieces": "montage"}
    assert dataclasses.replace(config, **montage).base == base
    blind = {"recipe": "systematic", "decoder": "sharpen", "decoder_reads": "results"}
    assert dataclasses.replace(config, **blind).base == base
    layers = {"split": "convolution", "least_spared": 0.1}
    assert dataclasses.replace(config, **layers).base == base
    # With its own settings given, those of the code no longer matter to it.
    own = {"base_batch_size": 8, "base_learning_rate": 0.2}
    rest = {"batch_size": 4, "learning_rate": 1.0}
    assert dataclasses.replace(config, **own, **rest).base == base
    decays = [
        dataclasses.replace(config, base_weight_decay=0.3, weight_decay=decay).base
        for decay in (0.1, 0.2)
    ]
    assert decays[0] == decays[1]
    changes = {
        "dataset": "cifar100",
        "base_model": "vgg16",
        "base_width": 0.25,
        "base_epochs": 3,
        "base_batch_size": 4,
        "base_learning_rate": 0.1,
        "base_schedule": "constant",
        "base_optimizer": "sgd",
        "base_weight_decay": 0.3,
        "base_products": "bfloat16",
        "image_size": 32,
        "base_start": "runs/base",
        "images_digest": "0123456789abcdef",
        "augmentation": "none",
        "label_smoothing": 0.2,
        "batch_size": 4,
        "learning_rate": 0.1,
        "weight_decay": 0.2,
        "precision": "float32",
        "seed": 5,
    }
    assert {
        *changes,
        *others,
        *apart,
        *chain,
        *layers,
        *sums,
        *blind,
    } == dataclasses.asdict(config).keys()
    for name, value in changes.items():
        assert dataclasses.replace(config, **{name: value}).base != base, name


def test_a_step_of_a_tail_that_is_frozen_is_refused():
    with pytest.raises(
        ValueError, match="^tail_step: 0.02 given, 0.1 with tail=frozen"
    ):
        Config(tail_step=0.02)
    Config(tail_step=0.02, tail="tuned", distillation=0.3)
