"""Which folder of images is which part of the data set."""

import pytest

from coded_jax import data

Image = pytest.importorskip("PIL.Image")


def test_each_part_is_read_from_its_own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))  # where decoded images are kept
    root, greys = tmp_path / "images", {"train": 10, "val": 20, "test": 30}
    for part, grey in greys.items():
        for name in ("cat", "dog"):
            (root / part / name).mkdir(parents=True)
            Image.new("L", (8, 8), grey).save(root / part / name / "0.png")
    dataset = data.load("folder", str(root))
    for part, grey in (("train", 10), ("validation", 20), ("test", 30)):
        assert (getattr(dataset, part).images == grey).all(), part
