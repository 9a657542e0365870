"""The flags of an experiment are the settings of `Config`, which are declared once."""

import dataclasses
import os
import pathlib

import pytest
from absl import flags
from absl.testing import flagsaver

from coded_jax import settings
from coded_jax.cli import experiment_flags
from coded_jax.runs.config import BaseConfig, Config

ROOT = pathlib.Path(__file__).parents[2]
FLAGFILES = sorted((ROOT / "experiments" / "flags").glob("*.flags"))

# As they were when each flag was still defined by hand.
DEFAULTS = {
    "dataset": "mnist",
    "base_model": "lenet5",
    "base_width": 1.0,
    "k": 2,
    "r": 1,
    "l": None,
    "stages": None,
    "stage_training": "end_to_end",
    "stage_losses": "held",
    "grid": None,
    "split": "image",
    "code": "learned",
    "baselines": ("zero_fill", "no_parity"),
    "seeds": 1,
    "tried": None,
    "recipe": "paper",
    "encoder": None,
    "decoder": None,
    "encoder_width": None,
    "decoder_width": None,
    "dilations": (1, 1, 2, 4, 8, 1),
    "decoder_dilations": None,
    "kernel": 3,
    "decoder_channels": None,
    "least_spared": 0.0,
    "nonnegative": False,
    "sums": "cosine",
    "draws": "counts",
    "pattern_weights": (),
    "code_augmentation": "none",
    "distillation": 0.0,
    "supervision": 0.0,
    "base_epochs": 15.0,
    "base_batch_size": None,
    "base_learning_rate": None,
    "base_schedule": "cosine",
    "augmentation": "none",
    "label_smoothing": 0.0,
    "epochs": 10.0,
    "train_images": None,
    "batch_size": 64,
    "learning_rate": 0.001,
    "weight_decay": 1e-05,
    "precision": "float32",
    "seed": 0,
    "evaluated": "test",
    "parity_start": "base",
    "parity_pieces": "sums",
    "tail": "frozen",
    "tail_step": 0.1,
    "parity_moves": False,
    "preactivations": False,
    "parity_goes_on": False,
    "halo": 0,
    "stage_grids": None,
    "decoder_start": "drawn",
    "decoder_reads": "all",
    "fixed_sums": False,
    "ends": "all",
    "base_start": None,
    "beyond": 0.0,
    "feature_weights": "alike",
    "returned": "shares",
    "focus": 0.0,
    "other_stage_losses": (),
    "base_optimizer": "adam",
    "base_weight_decay": None,
    "image_size": None,
    "images_digest": None,
    "products": "default",
    "base_products": "default",
}


@pytest.fixture
def parse(monkeypatch):
    """Parses flags, for one test, and returns their config."""
    monkeypatch.chdir(ROOT)  # flagfiles name others relative to the repository

    def parsed(*arguments):
        flags.FLAGS(["run.py", "--workdir=x", *arguments], known_only=True)
        return experiment_flags.config_from_flags()

    with flagsaver.flagsaver():
        yield parsed


def test_flags_and_their_defaults_are_the_old_ones():
    defaults = {name: flags.FLAGS[name].default for name in experiment_flags.SETTINGS}
    assert defaults == DEFAULTS
    # 15.0 and not 15: the text of the flags names folders.
    kinds = {name: type(value) for name, value in defaults.items()}
    assert kinds == {name: type(value) for name, value in DEFAULTS.items()}


def test_every_setting_is_declared_and_every_flag_has_its_help():
    fields = [field.name for field in dataclasses.fields(Config)]
    declared = settings.settings(Config)
    assert [setting.name for setting in declared] == fields
    assert sorted(fields) == sorted(DEFAULTS)
    for setting in declared:
        flag = flags.FLAGS[setting.name]
        assert flag.help.startswith(setting.help) and setting.help


def test_a_declared_setting_is_in_flags_checks_and_documentation():
    @dataclasses.dataclass(frozen=True)
    class Wider(BaseConfig):
        depth: int = settings.setting(3, "of the network", settings.integers(1, 5))

    (declared,) = [
        setting for setting in settings.settings(Wider) if setting.name == "depth"
    ]
    values = flags.FlagValues()
    experiment_flags.define(declared, values)
    values(["run.py", "--depth=4"])
    assert values["depth"].value == 4
    with pytest.raises(ValueError, match=r"^depth: 6 given, 1\.\.5 accepted$"):
        Wider(depth=6)
    assert "| `depth` | `3` | 1..5 | of the network |" in settings.markdown(Wider)


@pytest.mark.parametrize("path", FLAGFILES, ids=lambda path: path.stem)
def test_flagfiles_are_configs_that_their_flags_give_again(parse, path):
    config = parse(f"--flagfile={os.path.relpath(path, ROOT)}")
    again = parse(*(f"--{name}={text}" for name, text in config.to_flags().items()))
    assert again == config
    assert Config.from_json(config.to_json()) == config


def test_values_of_every_form(parse):
    config = parse(
        "--k=4",
        "--r=2",
        "--grid=2x2",
        "--stages=1,3-4",
        "--pattern_weights=0+4:8,1:0.5",
        "--baselines=",
        "--dilations=1, 2",
        "--nonnegative",
        "--epochs=3",
    )
    assert config == Config(
        k=4,
        r=2,
        grid=(2, 2),
        stages=((1, 1), (3, 4)),
        pattern_weights=(((0, 4), 8.0), ((1,), 0.5)),
        baselines=(),
        dilations=(1, 2),
        nonnegative=True,
        epochs=3.0,
    )


def test_an_empty_text_takes_back_what_a_flagfile_has(parse):
    assert parse("--decoder_width=5", "--decoder_width=").decoder_width is None
    assert parse("--base_start=x", "--base_start=").base_start is None
    assert parse("--stages=1,2", "--stages=").stages is None
    assert parse("--grid=1x2", "--grid=").grid == Config().grid


@pytest.mark.parametrize(
    "argument, message",
    [
        ("--k=two", "k: 'two' given, an integer accepted"),
        ("--grid=2by1", "grid: '2by1' given, rows x columns as 2x2 accepted"),
        ("--stages=a", "stages: 'a' given, blocks as 1-2,3-4 accepted"),
        (
            "--pattern_weights=0+1",
            "pattern_weights: '0+1' given, patterns and weights as 0+4:8,1:2 accepted",
        ),
        ("--epochs=many", "epochs: 'many' given, a number accepted"),
    ],
)
def test_a_text_of_another_form_is_one_line(parse, argument, message):
    with pytest.raises(flags.Error) as error:
        parse(argument)
    assert str(error.value) == message


def test_a_value_out_of_range_is_one_line(parse):
    with pytest.raises(ValueError, match=r"^encoder: 'cnn' given, one of \['mlp'"):
        parse("--encoder=cnn")
