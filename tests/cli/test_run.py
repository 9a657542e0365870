"""A run in plain words, before and after it."""

import coded_jax
from coded_jax.cli.commands import run
from coded_jax.runs.prepare import prepare
from coded_jax.runs.workdir import Places
from tests.runs.test_experiment import SMALL


def test_what_a_run_is_going_to_do_and_what_to_try_next(finished):
    prepared = prepare(SMALL, Places(finished, devices=1))
    sizes, pieces, folder = run.opening(prepared, "x")
    assert sizes.startswith("mnist_5k: 3,500 images to train on")
    assert "split into 2 pieces, 1 parity piece is made, 3 devices" in pieces
    assert folder.startswith("folder x; it goes on")
    results = coded_jax.load(finished, devices=1).results
    assert "coded_jax.load('x').classify(" in run.closing(results, "x")[-1]
