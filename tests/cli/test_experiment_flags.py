"""The flags of an experiment are the settings of `Config`, which are declared once."""

import dataclasses
import pathlib

import pytest
from absl import flags
from absl.testing import flagsaver

from coded_jax import settings
from coded_jax.cli import experiment_flags
from coded_jax.runs.config import Config

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def parse(monkeypatch):
    """Parses flags, for one test, and returns their config."""
    monkeypatch.chdir(ROOT)  # flagfiles name others relative to the repository

    def parsed(*arguments):
        flags.FLAGS(["run.py", "--workdir=x", *arguments], known_only=True)
        return experiment_flags.config_from_flags()

    with flagsaver.flagsaver():
        yield parsed


def test_every_setting_is_declared_and_every_flag_has_its_help():
    fields = [field.name for field in dataclasses.fields(Config)]
    declared = settings.settings(Config)
    assert [setting.name for setting in declared] == fields
    for setting in declared:
        flag = flags.FLAGS[setting.name]
        assert flag.help.startswith(setting.help) and setting.help


@pytest.mark.parametrize("name", ["quickstart", "table5_k4_r2_conv"])
def test_flagfiles_are_configs_that_their_flags_give_again(parse, name):
    config = parse(f"--flagfile=experiments/flags/{name}.flags")
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


@pytest.mark.parametrize(
    "argument",
    ["--k=two", "--grid=2by1", "--stages=a", "--pattern_weights=0+1", "--encoder=cnn"],
)
def test_what_is_refused_is_one_line(parse, argument):
    with pytest.raises((flags.Error, ValueError)) as error:
        parse(argument)
    assert str(error.value).startswith(f"{argument[2:].partition('=')[0]}: ")
    assert "\n" not in str(error.value)
