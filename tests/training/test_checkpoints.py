"""Checkpoints: exact, atomic under `kill -9`, and proof against damage."""

import itertools
import os
import pathlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from orbax.checkpoint import v1 as ocp

from coded_jax.training import checkpoints

ROOT = pathlib.Path(__file__).parents[2]


class State(NamedTuple):
    step: jax.Array
    params: dict
    opt: tuple


def make_state(value: int) -> State:
    """A state that encodes `value` in every leaf."""
    params = {"w": jnp.full((50, 40), value, jnp.float32), "b": jnp.full(3, value)}
    return State(jnp.int32(value), params, (optax.EmptyState(), jnp.float32(value)))


LIKE = jax.eval_shape(lambda: make_state(0))


def bits(leaf) -> tuple:
    x = np.asarray(leaf)
    return x.dtype, x.shape, x.tobytes()


def assert_same(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert bits(a) == bits(b)


def assert_restores(directory, step: int):
    restored = checkpoints.restore(directory, LIKE)
    assert restored is not None and restored.step == step
    assert_same(restored.state, make_state(step))


FLOATS = np.array([0x7FC12345, 0xFFC00001, 0x7F800001, 0x80000000, 1], np.uint32)
HALVES = np.array([0x7FC1, 0xFFFF, 0x7F81, 0x8000, 1], np.uint16)
LEAVES = {
    "float32, NaN payloads": FLOATS.view(np.float32),
    "bfloat16, NaN payloads": jnp.array(HALVES.view(jnp.bfloat16)),
    "all -0.0": -jnp.zeros((3, 4)),
    "all 0": jnp.zeros((3, 4)),
    "bool": jnp.array([True, False]),
    "complex64": jnp.array([1 + 2j]),
    "scalar": jnp.float32(3),
    "Fortran order": np.asfortranarray(np.arange(6, dtype=np.int32).reshape(2, 3)),
}


def test_every_leaf_is_restored_bit_for_bit(tmp_path):
    state = {"a/b.c['d']": LEAVES, "empty": ({}, None)}
    checkpoints.save(tmp_path, 7, state, seconds=0.1)
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state)
    for like in (state, abstract):
        restored = checkpoints.restore(tmp_path, like)
        assert restored is not None and restored[::2] == (7, 0.1)
        assert_same(restored.state, state)
        assert all(isinstance(x, jax.Array) for x in jax.tree.leaves(restored.state))


def test_the_last_are_kept(tmp_path):
    assert checkpoints.restore(tmp_path / "nowhere", LIKE) is None
    assert checkpoints.steps(tmp_path / "nowhere") == []
    for step in (2, 9, 10, 30):
        checkpoints.save(tmp_path, step, make_state(step))
    assert checkpoints.steps(tmp_path) == [10, 30]
    assert_restores(tmp_path, 30)


def delete(path):
    path.unlink()


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def data_file(step_directory):
    files = [f for f in step_directory.rglob("*") if f.is_file()]
    return max(files, key=lambda f: f.stat().st_size)


@pytest.mark.parametrize("damage", [delete, flip])
@pytest.mark.parametrize("file", ["data", "checksums.json", "_METADATA"])
def test_damage_falls_back(tmp_path, file, damage):
    checkpoints.save(tmp_path, 1, make_state(1), seconds=1.5)
    checkpoints.save(tmp_path, 2, make_state(2), seconds=2.5)
    newest = tmp_path / "2"
    if file == "data":
        damage(data_file(newest))
    else:
        damage(next(newest.rglob(f"{file}*")))
    with pytest.warns(RuntimeWarning, match=f"{newest}: .+") as record:
        restored = checkpoints.restore(tmp_path, LIKE)
    assert len(record) == 1 and "\n" not in str(record[0].message)
    assert restored is not None and restored[::2] == (1, 1.5)
    assert_same(restored.state, make_state(1))
    damage(data_file(tmp_path / "1"))
    with pytest.warns(RuntimeWarning):
        assert checkpoints.restore(tmp_path, LIKE) is None
    # Training goes on: what it saves takes the place of the damaged one.
    checkpoints.save(tmp_path, 2, make_state(2))
    assert_restores(tmp_path, 2)


class Death(BaseException):
    """Stands for `kill -9`: no handler of the library may run."""


@pytest.mark.parametrize("step", [2, 3])
def test_death_at_every_file_operation(tmp_path, monkeypatch, step):
    """Step 2 is a replacement, step 3 a new one that makes step 1 go."""
    operations = [(pathlib.Path, "rename"), (pathlib.Path, "write_text")]
    operations += [(checkpoints.shutil, "rmtree"), (ocp, "save")]
    for when, after in itertools.product(range(100), (False, True)):
        directory = tmp_path / f"{when}{after}"
        for old in (1, 2):
            checkpoints.save(directory, old, make_state(old))
        count = itertools.count()

        def mortal(original, count=count, when=when, after=after):
            def operation(*args, **kwargs):
                dies = next(count) == when
                if dies and not after:
                    raise Death
                result = original(*args, **kwargs)
                if dies:
                    raise Death
                return result

            return operation

        with monkeypatch.context() as patch:
            for owner, name in operations:
                patch.setattr(owner, name, mortal(getattr(owner, name)))
            try:
                checkpoints.save(directory, step, make_state(step))
                died = False
            except Death:
                died = True
        saved = checkpoints.steps(directory)
        # Between the two renames of a replacement only step 1 is there.
        assert saved in ([[1, 2], [1]] if step == 2 else [[1, 2], [1, 2, 3], [2, 3]])
        assert_restores(directory, saved[-1])
        checkpoints.save(directory, 4, make_state(4))
        assert sorted(os.listdir(directory)) == [str(saved[-1]), "4"]
        if not died:
            break
    assert not died and when >= 4


def half_a_save(path, *args, **kwargs):
    pathlib.Path(f"{path}.orbax-checkpoint-tmp").mkdir()
    raise ValueError("RESOURCE_EXHAUSTED:\nfailed [os_error_code='28']")


@pytest.mark.parametrize(
    ("owner", "name", "fake", "reason"),
    [
        (ocp, "save", half_a_save, "No space left on device"),
        (pathlib.Path, "write_text", lambda *_: 1 / 0, "ZeroDivisionError"),
    ],
)
def test_a_save_that_fails(tmp_path, monkeypatch, owner, name, fake, reason):
    for step in (1, 2):
        checkpoints.save(tmp_path, step, make_state(step))
    for step in (2, 3):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, fake)
            with pytest.raises(OSError, match=f"{tmp_path}: .*{reason}") as error:
                checkpoints.save(tmp_path, step, make_state(0))
        assert "\n" not in str(error.value)
        assert sorted(os.listdir(tmp_path)) == ["1", "2"]
        assert_restores(tmp_path, 2)
    checkpoints.save(tmp_path, 3, make_state(3))
    assert_restores(tmp_path, 3)
