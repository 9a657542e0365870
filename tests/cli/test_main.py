"""The entry point: `python -m coded_jax`, its commands, and what they record."""

import json
import os
import subprocess
import sys

import pytest

from coded_jax.cli import main
from tests.scripts import ROOT, run_command


def start(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["coded_jax", *words])
    main.main()


@pytest.mark.parametrize("words", [[], ["--help"]])
def test_commands_are_listed_with_what_to_type_next(monkeypatch, capsys, words):
    start(monkeypatch, *words)
    text = capsys.readouterr().out
    for name, about in main.COMMANDS.items():
        assert f"  {name} " in text and about in text
    assert "python -m coded_jax quickstart\n" in text
    assert max(map(len, text.splitlines())) <= 88


def test_the_list_needs_no_jax_and_the_module_runs():
    """In an interpreter of its own, as `python -m` starts it."""
    program = (
        "import runpy, sys; sys.argv[1:] = []; "
        "runpy.run_module('coded_jax', run_name='__main__', alter_sys=True); "
        "assert not {'jax', 'absl', 'numpy'} & {*sys.modules}"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "quickstart" in done.stdout


def test_every_command_has_a_module():
    modules = {path.stem for path in (ROOT / "coded_jax/cli/commands").glob("[!_]*.py")}
    assert modules == {*main.COMMANDS} - {main.QUICKSTART}


@pytest.mark.parametrize("name", ["run", "export", "serve"])
def test_help_says_what_a_command_does_and_all_its_flags(name):
    done = run_command(name, "--help")
    assert done.returncode == 0, done.stderr
    assert f"python -m coded_jax {name} " in done.stdout
    flags = {"run": "--base_epochs", "export": "--output", "serve": "--hedge_after"}
    assert flags[name] in done.stdout and "--pdb" not in done.stdout


@pytest.mark.long
def test_quick_start_from_an_empty_folder(tmp_path):
    few = ["--base_epochs=0.05", "--epochs=0.05", "--baselines=", "--workdir=small"]
    done = run_command("quickstart", *few, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert os.listdir(tmp_path) == ["small"]  # later flags win
    results = json.loads((tmp_path / "small/results.json").read_text())
    assert results["config"]["dataset"] == "mnist_5k"
    assert results["command"] == f"python -m coded_jax quickstart {' '.join(few)}"


def test_flagfiles_are_listed_and_shown(tmp_path):
    listed = run_command("flags", folder=tmp_path).stdout
    for path in (ROOT / "experiments/flags").rglob("*.flags"):
        assert f"{path.relative_to(ROOT / 'experiments/flags')} " in listed
    first = "The main job in small: LeNet-5 and a k=2, r=1 code"
    assert first in " ".join(listed.split())
    assert "python -m coded_jax run --flagfile=NAME" in listed
    shown = run_command("flags", "quickstart.flags", folder=tmp_path).stdout
    assert shown == (ROOT / "experiments/flags/quickstart.flags").read_text()


def test_base_models_of_the_repository_are_not_trained_anew_elsewhere(tmp_path):
    done = run_command("run", "--flagfile=frontier_lenet5.flags", folder=tmp_path)
    assert done.returncode == 1 and os.listdir(tmp_path) == []
    assert done.stderr.startswith("error: base_dir: 'experiments/bases/mnist_lenet5' ")
    assert done.stderr.count("\n") == 1
