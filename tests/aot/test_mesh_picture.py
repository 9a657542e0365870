"""The picture of a mesh: every device where it is, with its pieces."""

import dataclasses

from coded_jax.aot import mesh_picture
from coded_jax.devices.meshes import make_mesh


@dataclasses.dataclass(frozen=True)
class Chip:
    """A device of a TPU that is not at hand."""

    id: int
    coords: tuple[int, int, int]
    core_on_chip: int = 0
    device_kind: str = "TPU v5 lite"
    platform: str = "tpu"
    process_index: int = 0


def drawn(mesh, k, r):
    """The words of each device, by panel and by its place there."""
    figure = mesh_picture.figure_of(mesh, k, r)
    return figure, [
        {tuple(map(int, text.get_position())): text.get_text() for text in axes.texts}
        for axes in figure.axes
    ]


def test_chips_stand_where_they_are_and_some_have_no_piece():
    chips = [Chip(i, (i % 2, i // 2, 0)) for i in range(8)]
    _, (panel,) = drawn(make_mesh(6, shape=(8, 1), available=chips), 4, 2)
    assert set(panel) == {(x, y) for x in range(2) for y in range(4)}
    assert panel[1, 0] == "device 1\ndata 1\nall images"
    assert panel[1, 2] == "device 5\nparity 1\nall images"
    assert panel[0, 3] == "device 6\nno piece\nall images"
