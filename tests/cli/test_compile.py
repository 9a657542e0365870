"""The command that compiles: on the CPU that is here, and what it refuses at once."""

import json

import pytest

from coded_jax.aot.programs import Compiled
from tests.scripts import run_command

FLAGS = (
    "--image_shape=28x28x1",
    "--dataset=mnist_5k",
    "--recipe=systematic",
    "--encoder=linear",
    "--decoder=low_rank",
    "--batches=2",
)


def test_programs_of_the_devices_at_hand(tmp_path):
    options = ("--kinds=inference", "--json=all.json")
    done = run_command("compile", *FLAGS, *options, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "all.json").read_text())
    outcomes = [Compiled.from_json(fields) for fields in content["programs"]]
    names = [outcome.name for outcome in outcomes]
    assert names == ["coded inference of 2", "uncoded inference of 2"]
    assert all(name in done.stdout for name in names)
    assert all(outcome.refusal is None for outcome in outcomes)
    assert content["config"]["encoder"] == "linear" and content["target"] is None
    assert content["provenance"]["command"].startswith("python -m coded_jax compile ")
    assert content["versions"]["jax"]
    assert (tmp_path / "mesh.png").read_bytes().startswith(b"\x89PNG")
    assert max(map(len, done.stdout.splitlines())) <= 80


@pytest.mark.parametrize(
    "flag",
    [
        "--target=v9:2x4",
        "--mesh=99x1",
    ],
)
def test_what_is_refused_before_anything_is_compiled(tmp_path, flag):
    done = run_command("compile", *FLAGS, flag, folder=tmp_path)
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith(f"error: {flag[2:].partition('=')[0]}: ")
    assert done.stdout == ""
