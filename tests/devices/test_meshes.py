"""The mesh is the one on which a device computes and exchanges least."""

import dataclasses

import pytest

from coded_jax.devices import meshes
from coded_jax.devices.meshes import make_mesh, padded_size
from tests.devices.counts import devices


@pytest.mark.parametrize(
    "n, count, shape",
    [
        (3, 1, (1, 1)),
        (3, 4, (3, 1)),
        (3, 6, (3, 2)),
        (6, 4, (2, 2)),  # 4x1 computes 2 pieces of all images, 2x2 3 of half of them
        (5, 8, (2, 4)),
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


@pytest.mark.parametrize(
    "available, count, shape, name",
    [
        (None, 0, None, "devices"),
        (None, 8, (4, 2), "mesh"),  # of three pieces
        (None, 4, (3, 2), "mesh"),  # more than four
        (None, 8, "2x1", "mesh"),
        # A part of a TPU host.
        (described("tpu", 8), None, (3, 2), "mesh"),
        (described("tpu", 8), 6, None, "devices"),
    ],
)
def test_impossible_meshes(available, count, shape, name):
    devices(8)
    with pytest.raises(ValueError, match=f"^{name}: .* given, ") as error:
        make_mesh(3, count, shape, available)
    assert "\n" not in str(error.value)


def test_sizes_that_the_devices_divide():
    mesh = make_mesh(3, devices(6))
    assert [padded_size(mesh, size) for size in (1, 6, 7, 13)] == [6, 6, 12, 18]
    assert padded_size(None, 7) == 7
