"""Flags of networks and of conditions that are compared; errors in one line.

They have names that flags of runs have, too, so that a process of their own reads them.
"""

import json
import os
import subprocess
import sys

import pytest

from tests.scripts import ROOT

OWN = """
def block(variables, x):
    return x

def numbers():
    return [block], {"kernel": 1.0}, (8, 8, 1)

def pair():
    return [lambda variables, x: (x, x)], {}, (8, 8, 1)

def good():
    return [block], {}, (8, 8, 1)
"""
PROGRAM = """
import json, sys
from absl import flags
from absl.testing import flagsaver
from map import plane_from_flags
from tables.network_flags import cnn_from_flags

def answer(what, *words):
    with flagsaver.flagsaver():
        flags.FLAGS(["test", "--output=x", *words])
        try:
            {"network": lambda: cnn_from_flags([]), "plane": plane_from_flags}[what]()
        except ValueError as error:
            return str(error)

flags.FLAGS(["test", "--output=x"])
print(json.dumps([answer(*case) for case in json.loads(sys.argv[1])]))
"""
LENET5 = ["network", "--base_model=lenet5", "--image_shape=28x28x1"]
CASES = {  # the flags, and the argument that is refused
    "variables that are numbers": (["network", "--cnn=own:numbers"], "cnn"),
    "a block of two results": (["network", "--cnn=own:pair"], "blocks"),
    "a CNN of one's own": (["network", "--cnn=own:good"], None),
    "a given drop": ([*LENET5, "--given_drop=1"], None),
    "a network twice": ([*LENET5, "--cnn=own:good"], "network"),
    "an axis without end": (["plane", "--x=bandwidth,1e5,1e8,100000000"], "x"),
    "an axis twice": (["plane", "--x=tail,0.1,1,3"], "y"),
    "a value out of range": (["plane", "--x=failure,0.1,10,3"], "failure"),
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
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT}/experiments"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return dict(zip(CASES, json.loads(done.stdout), strict=True))


@pytest.mark.parametrize("case", CASES)
def test_flags_of_networks_and_conditions(told, case):
    name = CASES[case][1]
    if name is None:
        assert told[case] is None
    else:
        assert told[case].startswith(f"{name}: ") and "\n" not in told[case]
