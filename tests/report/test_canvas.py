"""Tests of pictures' colours."""

import numpy as np
from matplotlib.colors import to_rgb
from PIL import Image

from coded_jax.report import canvas

COLOURS = [f"tab:{x}" for x in "blue orange green red purple brown pink olive".split()]


def test_colours_of_a_few_markers_are_kept(tmp_path):
    figure = canvas.new_figure(8, 6)
    axes = figure.subplots()
    axes.imshow(np.linspace(0, 1, 400).reshape(20, 20), extent=(0, 7, 2, 9))
    for at, colour in enumerate(COLOURS):
        axes.plot(at, 1, "o", color=colour, markersize=6)
    canvas.save(figure, tmp_path / "few.png", dpi=80)
    with Image.open(tmp_path / "few.png") as picture:
        assert picture.mode == "P"
        pixels = np.asarray(picture.convert("RGB"), dtype=float)
    for colour in COLOURS:
        distance = np.abs(pixels - 255 * np.array(to_rgb(colour))).max(-1)
        assert distance.min() <= 24, colour
