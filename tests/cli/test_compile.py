"""The command that compiles: on the CPU that is here, and what it refuses at once."""

import json

import pytest

from coded_jax.studies.programs import Compiled
from tests.scripts import run_command, run_script

FLAGS = (
    "--image_shape=28x28x1",
    "--dataset=mnist_5k",
    "--recipe=systematic",
    "--encoder=linear",
    "--decoder=low_rank",
    "--batches=2",
)


def test_programs_of_the_devices_at_hand(tmp_path):
    options = ("--kinds=inference,local", "--json=all.json")
    done = run_command("compile", *FLAGS, *options, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "all.json").read_text())
    outcomes = [Compiled.from_json(fields) for fields in content["programs"]]
    names = [outcome.name for outcome in outcomes]
    assert names[:2] == ["coded inference of 2", "uncoded inference of 2"]
    assert len(names) == 5 and all(name in done.stdout for name in names[:3])
    assert all(outcome.refusal is None for outcome in outcomes)
    assert content["config"]["encoder"] == "linear" and content["target"] is None
    assert content["provenance"]["command"].startswith("python -m coded_jax compile ")
    assert content["versions"]["jax"]
    assert (tmp_path / "mesh.png").read_bytes().startswith(b"\x89PNG")
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_the_script_compares_meshes(tmp_path):
    options = ("--compare=1x1", f"--picture={tmp_path / 'p.png'}")
    done = run_script("compile", *FLAGS, *options)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("coded inference of 2") == 1
    assert "uncoded" not in done.stdout and (tmp_path / "p.png").exists()


def test_a_cpu_stands_for_several_devices(tmp_path):
    options = ("--devices=6", "--kinds=inference", "--picture=")
    done = run_command("compile", *FLAGS, *options, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "3x2, " in done.stdout and "1 all-gather" in done.stdout


@pytest.mark.parametrize(
    "flag, message",
    [
        ("--target=v9:2x4", "target: 'v9:2x4' given, one of v4, v5e, "),
        ("--mesh=6", "mesh: '6' given, piece x data as 3x2 accepted"),
        ("--mesh=99x1", "mesh: 99x1 given, "),
        ("--devices=0", "devices: 0 given, 1 or more accepted"),
        ("--batches=0", "batches: ['0'] given, each 1 or more accepted"),
        ("--batches=", "batches: "),
        ("--batches=few", "batches: "),
        ("--kinds=all", "kinds: 'all' given, some of inference, training, "),
        ("--compare=99x1", "compare: '99x1' given, meshes of 1.."),
        ("--compare=3", "compare: '3' given"),
        ("--json=nowhere/all.json", "json: 'nowhere/all.json' given, a file in a "),
        ("--json=.", "json: '.' given, a file in a folder that exists accepted"),
        ("--picture=nowhere/mesh.png", "picture: "),
        ("--picture=mesh.unknown", "picture: "),
        ("--image_shape=28x28", "image_shape: '28x28' given"),
        ("--image_shape=8x8x1", "image_shape: (8, 8, 1) given, at least 16x16"),
        ("--k=1", "k: 1 given"),
    ],
)
def test_what_is_refused_before_anything_is_compiled(tmp_path, flag, message):
    done = run_command("compile", *FLAGS, flag, folder=tmp_path)
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith(f"error: {message}")
    assert done.stdout == ""
