"""Every command of `experiments/deep.sh` has flags that fit together."""

import os
import pathlib
import shlex
import shutil
import subprocess
import sys

import pytest
from absl import flags
from absl.testing import flagsaver

from coded_jax.cli.experiment_flags import config_from_flags

ROOT = pathlib.Path(__file__).parents[2]
STUB = """#!{python}
import pathlib, subprocess, sys
if sys.argv[1] == "-c":
    sys.exit(subprocess.call([{python!r}, *sys.argv[1:]]))
with open("commands", "a") as file:
    print(*sys.argv[1:], sep="\\t", file=file)
folder = next(x for x in sys.argv if x.startswith("--workdir=")).partition("=")[2]
pathlib.Path(folder).mkdir(parents=True)
(pathlib.Path(folder) / "results.json").write_text("{{}}")
"""


def commands(folder, *arguments):
    """The commands that the script would run, and what it says."""
    (folder / "experiments").mkdir(exist_ok=True)
    shutil.copy(ROOT / "experiments/deep.sh", folder / "experiments")
    python = folder / "bin/python"
    python.parent.mkdir(exist_ok=True)
    python.write_text(STUB.format(python=sys.executable))
    python.chmod(0o755)
    path = f"{python.parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "experiments/deep.sh", *arguments],
        cwd=folder,
        env={**os.environ, "PATH": path, "IMAGENETTE": "images"},
        capture_output=True,
        text=True,
    )
    written = folder / "commands"
    lines = written.read_text().splitlines() if written.exists() else []
    return done, [line.split("\t") for line in lines]


def config_of(arguments):
    with flagsaver.flagsaver():
        flags.FLAGS(["run.py", *arguments], known_only=True)
        return config_from_flags()


@pytest.mark.parametrize(
    "net, count",
    [
        ("vgg16", 54),
        ("resnet18", 47),
        ("mobilenet", 45),
        ("imagenette", 45),
        ("fashion_lenet5", 4),
        ("fashion_vgg16", 6),
        ("fashion_vgg16_all", 4),
        ("fashion_resnet18", 4),
        ("fashion_resnet18_all", 4),
        ("fashion_mobilenet", 4),
    ],
)
def test_all_codes_of_a_network_can_be_run(tmp_path, monkeypatch, net, count):
    done, runs = commands(tmp_path, net)
    assert done.returncode == 0, done.stderr
    assert len(runs) == count
    monkeypatch.chdir(ROOT)  # flagfiles name others relative to the repository
    configs = {}
    for script, *arguments in runs:
        assert script == "experiments/run.py"
        config = config_of(arguments)
        name = arguments[-1].rpartition("/")[2]
        assert name.endswith(f"_k{config.k}_r{config.r}"), shlex.join(arguments)
        configs[name] = config
    assert len(configs) == count
    # No two are the same code.
    distinct = {str(config.to_flags()) for config in configs.values()}
    assert len(distinct) == count
    stored = tmp_path / "experiments/results/deep"
    assert {path.stem for path in stored.iterdir()} == configs.keys()


def test_codes_and_sizes_are_chosen_and_finished_runs_left(tmp_path):
    done, runs = commands(tmp_path, "vgg16", "ours", "tuned", "k4_r2")
    names = [run[-1].rpartition("/")[2] for run in runs]
    assert names == ["vgg16_ours_k4_r2", "vgg16_tuned_k4_r2"]
    done, runs = commands(tmp_path, "vgg16", "ours", "k4_r2", "k2_r1")
    assert [run[-1].rpartition("_")[0] for run in runs[2:]] == [
        "--workdir=runs/deep/vgg16_ours_k2"
    ]


@pytest.mark.parametrize(
    "arguments", [("lenet5",), ("resnet18", "mlp"), ("vgg16", "k3_r1"), ("vgg16", ":")]
)
def test_other_names_are_refused(tmp_path, arguments):
    done, runs = commands(tmp_path, *arguments)
    assert done.returncode == 2 and not runs
    assert done.stderr.startswith(f"error: {arguments[-1]}: one of ")
    assert done.stderr.count("\n") == 1
