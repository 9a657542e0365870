"""The mesh is the one on which a device computes and exchanges least."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from coded_jax.devices import meshes
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
        (6, 4, (2, 2)),  # 4x1 computes 2 pieces of all images, 2x2 3 of half of them
        (6, 6, (6, 1)),
        (6, 8, (2, 4)),
        (5, 8, (2, 4)),
        (2, 8, (2, 4)),
    ],
)
def test_default_mesh(n, count, shape):
    mesh = make_mesh(n, devices(count))
    assert tuple(mesh.shape.items()) == (("piece", shape[0]), ("data", shape[1]))


@dataclasses.dataclass(frozen=True)
class Described:
    """A device that is not at hand."""

    id: int
    platform: str
    process_index: int = 0
    device_kind: str = "described"


def described(platform, count, hosts=1):
    return [Described(i, platform, i * hosts // count) for i in range(count)]


@pytest.mark.parametrize("n", [2, 3, 5, 6])
@pytest.mark.parametrize("count", [1, 4, 8, 16])
def test_every_chip_of_a_tpu_takes_part(n, count):
    mesh = make_mesh(n, available=described("tpu", count))
    pieces, shards = mesh.devices.shape
    assert {device.id for device in mesh.devices.flat} == set(range(count))
    others = [(p, count // p) for p in range(2, count + 1) if count % p == 0]
    for p, d in others:
        assert -(-n // pieces) / shards <= -(-n // p) / d


def test_gpus_may_stay_idle():
    assert make_mesh(3, available=described("cuda", 4)).devices.shape == (3, 1)
    assert make_mesh(6, available=described("cuda", 7)).devices.shape == (6, 1)


def test_of_equal_work_a_piece_each_comes_first_then_what_exchanges_least():
    assert meshes.by_cost(4, 8, whole_host=True)[:2] == [(4, 2), (2, 4)]
    # With 2x8, one in two of the queries leaves a device, and with 4x4 three in four.
    assert meshes.by_cost(7, 16, whole_host=True)[:2] == [(2, 8), (4, 4)]


@pytest.mark.parametrize("hosts", [1, 2, 4])
def test_devices_that_share_pieces_are_of_one_host(hosts):
    mesh = make_mesh(6, available=described("tpu", 16, hosts))
    for shard in mesh.devices.T:
        ids = [device.id for device in shard]
        assert ids == list(range(ids[0], ids[0] + len(ids)))
        assert len({device.process_index for device in shard}) == 1
    assert len({device.process_index for device in mesh.devices.flat}) == hosts


@pytest.mark.parametrize(
    "count, shape, message",
    [
        (None, (6, 1), "mesh: 6x1 given, one of all 8 chips of the TPU accepted: 1x8,"),
        (None, (3, 2), "mesh: 3x2 given"),
        (None, (1, 1), "mesh: 1x1 given"),
        (6, None, "devices: 6 given, 1 or 8 accepted"),
        (9, None, "devices: 9 given, 1..8 accepted, the tpu devices found"),
    ],
)
def test_a_part_of_a_tpu_host_is_refused(count, shape, message):
    with pytest.raises(ValueError, match=message) as error:
        make_mesh(6, count, shape, described("tpu", 8))
    assert "\n" not in str(error.value)


def test_one_chip_of_a_tpu_and_chips_without_a_piece():
    chips = described("tpu", 8)
    assert make_mesh(6, 1, available=chips).size == 1
    assert make_mesh(6, 1, (1, 1), chips).size == 1
    for shape in ((8, 1), (4, 2), (1, 8)):
        assert make_mesh(6, None, shape, chips).devices.shape == shape


@pytest.mark.parametrize(
    "n, shape, held",
    [
        (6, (8, 1), [(0,), (1,), (2,), (3,), (4,), (5,), (), ()]),
        (6, (2, 4), [(0, 1, 2), (3, 4, 5)]),
        (5, (4, 2), [(0, 1), (2, 3), (4,), ()]),
        (3, (1, 8), [(0, 1, 2)]),
    ],
)
def test_pieces_of_each_row_of_devices(n, shape, held):
    mesh = meshes.arrange(described("tpu", 8), shape)
    assert mesh.devices.shape == shape
    assert meshes.pieces_on(mesh, n) == held


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
