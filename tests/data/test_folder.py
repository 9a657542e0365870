"""Folders of images: what is read and refused."""

import numpy as np
import pytest

from coded_jax import data
from tests.errors import refused

Image = pytest.importorskip("PIL.Image")
CLASSES = ("cat", "dog", "owl")


def write(root, count=10, size=(12, 8), ending="png"):
    rng = np.random.default_rng(0)
    for part in ("train", "val"):
        for label, name in enumerate(CLASSES):
            (root / part / name).mkdir(parents=True)
            for i in range(count):
                shape = (size[1], size[0], 3)
                pixels = rng.integers(0, 256, shape, dtype=np.uint8)
                pixels[0, 0] = 10 * label
                Image.fromarray(pixels).save(root / part / name / f"{i}.{ending}")
    return str(root)


def labels_by_pixel(split):
    return split.images[:, 0, 0, 0] // 10


def test_images_have_the_labels_of_their_folders(tmp_path):
    dataset = data.load("folder", write(tmp_path))
    assert dataset.classes == 3 and dataset.image_shape == (8, 12, 3)
    sizes = [len(getattr(dataset, p).labels) for p in ("train", "validation", "test")]
    assert sizes == [27, 3, 30]
    for part in (dataset.train, dataset.validation, dataset.test):
        np.testing.assert_array_equal(part.labels, labels_by_pixel(part))
        assert part.images.dtype == np.uint8 and part.labels.dtype == np.int32
    # Not class by class: the first images are a random choice.
    assert len(set(dataset.train.labels[:9])) > 1
    mean = dataset.train.images.mean((0, 1, 2)) / 255
    np.testing.assert_allclose(dataset.mean, mean, rtol=1e-6)


def test_each_part_is_read_from_its_own_folder(tmp_path):
    root, greys = tmp_path / "images", {"train": 10, "val": 20, "test": 30}
    for part, grey in greys.items():
        for name in ("cat", "dog"):
            (root / part / name).mkdir(parents=True)
            Image.new("L", (8, 8), grey).save(root / part / name / "0.png")
    dataset = data.load("folder", str(root))
    for part, grey in zip(("train", "validation", "test"), greys.values(), strict=True):
        assert (getattr(dataset, part).images == grey).all(), part


def test_damaged_files_are_named(tmp_path):
    root = write(tmp_path)
    damaged = tmp_path / "train" / "dog" / "3.png"
    damaged.write_bytes(damaged.read_bytes()[:40])
    (tmp_path / "val" / "owl" / "x.jpg").write_text("no image")
    with pytest.raises(
        ValueError, match=r"2 of 61 images .*train/dog/3.png.*owl/x.jpg"
    ):
        data.load("folder", root)


def test_other_layouts_are_refused(tmp_path):
    for given in (None, "", str(tmp_path / "missing"), str(tmp_path)):
        with refused("data_dir"):
            data.check("folder", given)
    root = write(tmp_path, count=3)
    with refused("data_dir"):  # too few to hold some out for validation
        data.load("folder", root)
    (tmp_path / "val" / "emu").mkdir()
    with pytest.raises(ValueError, match=r"val/ has the classes \[cat, dog, emu"):
        data.check("folder", root)


def test_other_data_sets_are_resized_too():
    before, after = data.load("mnist_5k"), data.load("mnist_5k", None, 14)
    old, new = before.test, after.test
    assert new.images.shape == (1000, 14, 14, 1) and new.images.dtype == np.uint8
    np.testing.assert_array_equal(new.labels, old.labels)
    # About the means of 2x2 pixels: bicubic filters are a little sharper.
    means = old.images.reshape(-1, 14, 2, 14, 2).mean(axis=(2, 4))
    assert np.abs(new.images[..., 0] - means).mean() < 6
    pixels = after.train.images / 255
    assert after.mean == pytest.approx((pixels.mean(),), rel=1e-6)
    assert after.std == pytest.approx((pixels.std(),), rel=1e-6)
