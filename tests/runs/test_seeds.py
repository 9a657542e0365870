"""Several seeds of one code: trained together, they are what each is alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coded_jax.runs import phases, workdir
from coded_jax.training import checkpoints, loop
from coded_jax.training.optimizers import Regime
from tests.training.test_loop import BATCH, arrays, regression

KEYS = jax.random.split(jax.random.key(7), 4)


def fit(folder, trained, task, phase, key):
    directory = folder and workdir.checkpoint_folder(folder, phase)
    trained.append(phase)
    return loop.fit(
        task,
        jnp.asarray(1.0),
        arrays(),
        key,
        Regime(3.4, BATCH),
        directory=directory,
    )


def fit_seeds(folder, trained, keys=KEYS, task=None):
    task = task or regression()
    fitted = {}
    for phase, key in phases.trainings(task, keys, folder, "code"):
        fitted[phase] = fit(folder, trained, task, phase, key)
    return [fitted[workdir.phase_of("code", i)] for i in range(len(keys))]


@pytest.fixture
def accelerator(monkeypatch):
    """Where several steps are one call, as on accelerators."""
    for module in (loop, phases):
        monkeypatch.setattr(module, "steps_per_call", lambda: 2)
    monkeypatch.setattr(phases, "MAPS_SEEDS", True)  # these have no convolutions


@functools.cache
def alone():
    return [fit(None, [], regression(), "alone", key) for key in KEYS]


def assert_as_alone(outcomes):
    for single, outcome in zip(alone(), outcomes, strict=True):
        np.testing.assert_allclose(outcome.params["w"], single.params["w"], rtol=1e-5)
        assert outcome.score == pytest.approx(single.score, rel=1e-5)
        assert (outcome.steps, np.shape(outcome.score)) == (single.steps, ())
    assert len({outcome.score for outcome in outcomes}) == len(KEYS)


def test_on_a_cpu_one_after_the_other(tmp_path):
    trained = []
    fitted = fit_seeds(tmp_path, trained)
    assert trained == ["code", "code_1", "code_2", "code_3"]
    assert_as_alone(fitted)


def test_on_an_accelerator_together(tmp_path, accelerator):
    trained = []
    fitted = fit_seeds(tmp_path, trained)
    # Each is handed its checkpoint, from which it has nothing left to do.
    assert trained == ["code_0-3", "code", "code_1", "code_2", "code_3"]
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == trained[1:]
    assert_as_alone(fitted)
    assert fitted[1].seconds == pytest.approx(fitted[0].seconds)


def test_more_seeds_keep_what_is_trained(tmp_path, accelerator):
    first = fit_seeds(tmp_path, [], KEYS[:1])
    trained = []
    fitted = fit_seeds(tmp_path, trained)
    assert trained[0] == "code_1-3"
    np.testing.assert_array_equal(fitted[0].params["w"], first[0].params["w"])
    assert_as_alone(fitted)


def test_killed_while_checkpoints_are_handed_out(tmp_path, accelerator, monkeypatch):
    save = checkpoints.save

    def crash(directory, *arguments, **options):
        if directory.name == "code_2":
            raise RuntimeError("crash")
        save(directory, *arguments, **options)

    monkeypatch.setattr(checkpoints, "save", crash)
    with pytest.raises(RuntimeError, match="crash"):
        fit_seeds(tmp_path, [])
    monkeypatch.setattr(checkpoints, "save", save)
    trained = []
    fitted = fit_seeds(tmp_path, trained)
    assert trained[0] == "code_0-3"
    assert_as_alone(fitted)
