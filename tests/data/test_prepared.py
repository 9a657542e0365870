"""Data sets of TFDS: what is read, what is refused, and what is left behind."""

from __future__ import annotations

import io
import json
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from coded_jax.data import datasets
from coded_jax.types import Split
from tests.data.rows import rows

NAME, VERSION = "cifar100", "3.0.2"
SIZES = {"train": 40, "test": 12}


@pytest.fixture(autouse=True)
def no_default_folder(monkeypatch, tmp_path_factory):
    """Nothing that the machine's user has prepared takes part."""
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))


def make_features():
    features = pytest.importorskip("tensorflow_datasets").features
    return features.FeaturesDict(
        {
            "image": features.Image(shape=(32, 32, 3)),
            "label": features.ClassLabel(num_classes=100),
            "id": features.Text(),
            "coarse_label": features.ClassLabel(num_classes=20),
        }
    )


def write_info(root, sizes):
    """Writes the metadata that TFDS puts beside prepared data; returns the folder."""
    folder = Path(root, NAME, VERSION)
    folder.mkdir(parents=True)
    make_features().save_config(folder)
    template = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
    info = {
        "name": NAME,
        "version": VERSION,
        "fileFormat": "array_record",
        "splits": [
            {"name": split, "shardLengths": [str(n)], "filepathTemplate": template}
            for split, n in sizes.items()
        ],
    }
    (folder / "dataset_info.json").write_text(json.dumps(info, indent=2))
    return folder


def write_data(root, sizes=SIZES):
    """Prepares random images as TFDS would, without TensorFlow; returns them."""
    module = pytest.importorskip("array_record.python.array_record_module")
    image_of = pytest.importorskip("PIL.Image").fromarray
    folder = write_info(root, sizes)
    features = make_features()
    rng = np.random.default_rng(0)
    written = {}
    for split, size in sizes.items():
        images = rng.integers(0, 256, (size, *features["image"].shape), np.uint8)
        labels = rng.integers(0, features["label"].num_classes, size)
        path = folder / f"{NAME}-{split}.array_record-00000-of-00001"
        writer = module.ArrayRecordWriter(str(path), "group_size:1")
        for image, label in zip(images, labels, strict=True):
            png = io.BytesIO()
            image_of(image.squeeze()).save(png, "PNG")
            png.seek(0)
            example = {"image": png, "label": label, "id": "x", "coarse_label": 1}
            example = features.encode_example({key: example[key] for key in features})
            writer.write(features.serialize_example(example))
        writer.close()
        written[split] = images, labels
    return written


def listing(folder):
    return sorted(str(path) for path in Path(folder).rglob("*"))


def test_reads_what_was_prepared(tmp_path, capfd):
    written = write_data(tmp_path)
    before = listing(tmp_path)
    datasets.check(NAME, str(tmp_path))
    loaded = datasets.load(NAME, str(tmp_path))
    images, labels = written["train"]
    assert loaded.classes == 100
    assert loaded.image_shape == images.shape[1:]
    assert len(loaded.train.labels) == 36 and len(loaded.validation.labels) == 4
    whole = rows(Split(images, labels))
    assert sorted(rows(loaded.train, loaded.validation)) == sorted(whole)
    assert rows(loaded.train, loaded.validation) != whole  # shuffled
    assert rows(loaded.test) == rows(Split(*written["test"]))
    for part in (loaded.train, loaded.validation, loaded.test):
        assert (part.images.dtype, part.labels.dtype) == (np.uint8, np.int32)
    scaled = loaded.train.images / 255
    np.testing.assert_allclose(loaded.mean, scaled.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(loaded.std, scaled.std((0, 1, 2)), rtol=1e-12)
    assert listing(tmp_path) == before
    assert capfd.readouterr().err == ""


@pytest.fixture
def extras():
    for module in ("tensorflow_datasets", "array_record", "PIL"):
        pytest.importorskip(module)


def test_not_prepared_and_no_tensorflow(tmp_path, monkeypatch, extras):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    for function in (datasets.check, datasets.load):
        with pytest.raises(FileNotFoundError, match="cifar10.*tensorflow") as caught:
            function("cifar10", str(tmp_path))
        assert "\n" not in str(caught.value)
        with pytest.raises(FileNotFoundError):
            function("mnist")  # in the default folder, which is not made
        with pytest.raises(ValueError, match="^data_dir"):
            function("mnist", str(tmp_path / "missing"))
    assert listing(tmp_path) == listing(os.environ["HOME"]) == []


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize("damage", [truncate, Path.unlink])
def test_damaged_files(damage, tmp_path):
    write_data(tmp_path, {"train": 300, "test": 5})
    file = f"{NAME}-train.array_record-00000-of-00001"
    damage(tmp_path / NAME / VERSION / file)
    message = f"cannot read {NAME} in data_dir {re.escape(str(tmp_path))}: "
    with pytest.raises(ValueError, match=message) as caught:
        datasets.load(NAME, str(tmp_path))
    assert "\n" not in str(caught.value)
