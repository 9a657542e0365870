"""Flags of networks and of conditions that are compared; errors in one line.

They have names that flags of runs have, too, so that a process of their own reads them.
"""

import json
import subprocess
import sys

import pytest

OWN = """
import jax

def block(variables, x):
    return x

def none():
    return [3], {}, (8, 8, 1)

def flat():
    return [block], {}, (8, 8)

def numbers():
    return [block], {"kernel": 1.0}, (8, 8, 1)

def pair():
    return [lambda variables, x: (x, x)], {}, (8, 8, 1)

def empty_between():
    pad = lambda variables, x: jax.numpy.pad(x, ((0, 0), (4, 4), (0, 0), (0, 0)))
    return [lambda variables, x: x[:, :0], pad], {}, (8, 8, 1)

def good():
    return [block], {}, (8, 8, 1)
"""
PROGRAM = """
import json, sys
from absl import flags
from absl.testing import flagsaver
from coded_jax.cli.condition_flags import plane_from_flags
from coded_jax.cli.network_flags import cnn_from_flags, refuse_beside_runs

def answer(what, *words):
    with flagsaver.flagsaver():
        flags.FLAGS(["test", *words])
        try:
            {"network": lambda: cnn_from_flags([]), "plane": plane_from_flags,
             "runs": refuse_beside_runs}[what]()
        except ValueError as error:
            return str(error)

flags.FLAGS(["test"])
print(json.dumps([answer(*case) for case in json.loads(sys.argv[1])]))
"""
LENET5 = ["network", "--base_model=lenet5", "--image_shape=28x28x1"]
DROP = [*LENET5, "--given_drop=1"]
STAGES = "blocks as 1-2,3-4, one after another, in 1..4, accepted"
AXIS = "an axis, two numbers above 0 and 2..100 points, as tail,0.03,3,9, accepted"
CASES = {
    "blocks that are numbers": (
        ["network", "--cnn=own:none"],
        "cnn: 'own:none' given, one whose blocks are functions accepted",
    ),
    "a shape of two": (
        ["network", "--cnn=own:flat"],
        "cnn: (8, 8) given, (H, W, C), whole numbers of 1 or more, accepted",
    ),
    "variables that are numbers": (
        ["network", "--cnn=own:numbers"],
        "cnn: 'own:numbers' given, one whose variables are arrays or their shapes "
        "accepted",
    ),
    "a block of two results": (
        ["network", "--cnn=own:pair"],
        "blocks: tuple [2] given, features [B, M*, M'*, D] accepted",
    ),
    "a block without results": (
        ["network", "--cnn=own:empty_between"],
        "image_shape: (8, 8, 1) given, one that leaves features accepted",
    ),
    "a CNN of one's own": (["network", "--cnn=own:good"], None),
    "stages of a word": ([*DROP, "--stages=foo"], f"stages: 'foo' given, {STAGES}"),
    "no stages": ([*DROP, "--stages="], f"stages: '' given, {STAGES}"),
    "too many stages": ([*DROP, "--stages=1-9"], f"stages: '1-9' given, {STAGES}"),
    "stages from 0": ([*DROP, "--stages=0-2"], f"stages: '0-2' given, {STAGES}"),
    "stages that overlap": (
        [*DROP, "--stages=1-2,2-3"],
        f"stages: '1-2,2-3' given, {STAGES}",
    ),
    "stages backwards": ([*DROP, "--stages=3-1"], f"stages: '3-1' given, {STAGES}"),
    "stages of no code": (
        [*LENET5, "--stages=1-2"],
        "stages: '1-2' given, none without --given_drop accepted",
    ),
    "stages": ([*DROP, "--stages=1-2,4"], None),
    "a great drop": (
        [*LENET5, "--given_drop=200"],
        "given_drop: 200.0 given, 0..100 accepted",
    ),
    "a drop below 0": (
        [*LENET5, "--given_drop=-1"],
        "given_drop: -1.0 given, 0..100 accepted",
    ),
    "few pixels": (
        ["network", "--base_model=lenet5", "--image_shape=8x8x1"],
        "image_shape: (8, 8, 1) given, at least 16x16 accepted",
    ),
    "a network beside runs": (
        ["runs", "--base_model=lenet5"],
        "base_model: 'lenet5' given, none beside finished runs accepted",
    ),
    "a drop beside runs": (
        ["runs", "--given_drop=1"],
        "given_drop: 1.0 given, none beside finished runs accepted",
    ),
    "runs": (["runs"], None),
    "an axis without end": (
        ["plane", "--x=bandwidth,1e5,1e8,100000000"],
        f"x: 'bandwidth,1e5,1e8,100000000' given, {AXIS}",
    ),
    "an axis of infinity": (
        ["plane", "--x=bandwidth,1e5,1e8,inf"],
        f"x: 'bandwidth,1e5,1e8,inf' given, {AXIS}",
    ),
    "an axis": (["plane", "--x=bandwidth,1e5,1e8,100"], None),
}


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """Messages by case; None where nothing is wrong."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "own.py").write_text(OWN)
    asked = json.dumps([words for words, _ in CASES.values()])
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, asked],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return dict(zip(CASES, json.loads(done.stdout), strict=True))


@pytest.mark.parametrize("case", CASES)
def test_flags_of_networks_and_conditions(told, case):
    assert told[case] == CASES[case][1]
