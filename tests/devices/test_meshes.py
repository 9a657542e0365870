"""The mesh has a piece on each device, and the rest of the devices divide the batch."""

import jax.numpy as jnp
import numpy as np
import pytest

from coded_jax.devices.meshes import make_mesh, padded_size
from tests.devices.counts import devices


@pytest.mark.parametrize(
    "n, count, shape",
    [
        (3, 1, (1, 1)),
        (3, 2, (2, 1)),
        (3, 3, (3, 1)),
        (3, 4, (3, 1)),
        (3, 6, (3, 2)),
        (3, 8, (3, 2)),
        (6, 4, (4, 1)),
        (2, 8, (2, 4)),
    ],
)
def test_default_mesh(n, count, shape):
    mesh = make_mesh(n, devices(count))
    assert tuple(mesh.shape.items()) == (("piece", shape[0]), ("data", shape[1]))


def test_counts_may_be_numbers_of_jax_and_numpy():
    for count in (jnp.int32(devices(3)), np.int64(3)):
        assert make_mesh(3, count).size == 3


def test_a_chosen_mesh():
    assert make_mesh(3, devices(8), (1, 8)).devices.shape == (1, 8)
    assert make_mesh(3, devices(8), (2, 3)).devices.shape == (2, 3)


@pytest.mark.parametrize(
    "count, shape, message",
    [
        (0, None, "devices: 0 given, 1..8 accepted"),
        (9, None, "devices: 9 given, 1..8 accepted"),
        (8, (4, 2), "mesh: 4x2 given, .* 1..3 along piece"),
        (4, (3, 2), "mesh: 3x2 given, .* at most 4"),
        (8, (0, 2), "mesh: 0x2 given"),
        (8, (3, -1), "mesh: 3x-1 given"),
        ("1", None, r"devices: '1' given, 1\.\.8 accepted"),
        (1.0, None, r"devices: 1.0 given, 1\.\.8 accepted"),
        (8, 3, r"mesh: 3 given, \(piece, data\), whole numbers, accepted"),
        (8, (1, 1, 1), r"mesh: \(1, 1, 1\) given"),
        (8, "2x1", "mesh: '2x1' given"),
    ],
)
def test_impossible_meshes(count, shape, message):
    devices(8)
    with pytest.raises(ValueError, match=message) as error:
        make_mesh(3, count, shape)
    assert "\n" not in str(error.value)


def test_sizes_that_the_devices_divide():
    mesh = make_mesh(3, devices(6))
    assert [padded_size(mesh, size) for size in (1, 6, 7, 13)] == [6, 6, 12, 18]
    assert padded_size(None, 7) == 7
