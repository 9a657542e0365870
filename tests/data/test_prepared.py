"""Data sets of TFDS: what is read, what is refused, and what is left behind."""

from __future__ import annotations

import functools
import io
import json
import os
import re
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from coded_jax.data import datasets, sources
from coded_jax.types import Split
from tests.data.rows import rows

VERSION = {"mnist": "3.0.1", "fashion_mnist": "3.0.1"}  # cifar: 3.0.2
SIZES = {"train": 40, "test": 12}


@pytest.fixture(autouse=True)
def no_default_folder(monkeypatch, tmp_path_factory):
    """Nothing that the machine's user has prepared takes part."""
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))


def features_of(name):
    tfds = pytest.importorskip("tensorflow_datasets")
    features = tfds.features
    colour = name.startswith("cifar")
    spec = {
        "image": features.Image(shape=(32, 32, 3) if colour else (28, 28, 1)),
        "label": features.ClassLabel(num_classes=100 if name == "cifar100" else 10),
    }
    if colour:
        spec["id"] = features.Text()
    if name == "cifar100":
        spec["coarse_label"] = features.ClassLabel(num_classes=20)
    return features.FeaturesDict(spec)


def write_info(root, name, sizes=SIZES, file_format="array_record", version=None):
    """Writes the metadata that TFDS puts beside prepared data; returns the folder."""
    version = version or VERSION.get(name, "3.0.2")
    folder = Path(root, name, version)
    folder.mkdir(parents=True)
    features_of(name).save_config(folder)
    template = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
    info = {
        "name": name,
        "version": version,
        "fileFormat": file_format,
        "splits": [
            {"name": split, "shardLengths": [str(n)], "filepathTemplate": template}
            for split, n in sizes.items()
        ],
    }
    (folder / "dataset_info.json").write_text(json.dumps(info, indent=2))
    return folder


def write_data(root, name, sizes=SIZES, version=None):
    """Prepares random images as TFDS would, without TensorFlow; returns them."""
    module = pytest.importorskip("array_record.python.array_record_module")
    image_of = pytest.importorskip("PIL.Image").fromarray
    folder = write_info(root, name, sizes, version=version)
    features = features_of(name)
    rng = np.random.default_rng(0)
    written = {}
    for split, size in sizes.items():
        images = rng.integers(0, 256, (size, *features["image"].shape), np.uint8)
        labels = rng.integers(0, features["label"].num_classes, size)
        path = folder / f"{name}-{split}.array_record-00000-of-00001"
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


@pytest.mark.parametrize("name", ["mnist", "cifar100"])
def test_reads_what_was_prepared(name, tmp_path, capfd):
    written = write_data(tmp_path, name)
    before = listing(tmp_path)
    datasets.check(name, str(tmp_path))
    loaded = datasets.load(name, str(tmp_path))
    images, labels = written["train"]
    assert loaded.classes == (100 if name == "cifar100" else 10)
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


def test_reads_the_newest_finished_version(tmp_path):
    write_info(tmp_path, "mnist", version="3.0.9", file_format="tfrecord")
    write_data(tmp_path, "mnist", {"train": 20, "test": 5}, version="3.0.2")
    newest = write_data(tmp_path, "mnist", {"train": 20, "test": 6}, version="3.0.10")
    write_info(tmp_path, "mnist", version="incomplete.ZEPBEJ_4.0.0")
    loaded = datasets.load("mnist", str(tmp_path))
    assert rows(loaded.test) == rows(Split(*newest["test"]))


@pytest.fixture
def extras():
    for module in ("tensorflow_datasets", "array_record", "PIL"):
        pytest.importorskip(module)


def with_tensorflow(monkeypatch):
    """As if what TFDS prepares with were installed."""
    find_spec = sources.find_spec
    monkeypatch.setattr(
        sources,
        "find_spec",
        lambda m: m if m in ("tensorflow", "importlib_resources") else find_spec(m),
    )


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


def test_not_prepared_and_no_network(tmp_path, monkeypatch, extras):
    with_tensorflow(monkeypatch)
    # The proxy of this address is asked, and refuses the connection.
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    with pytest.raises(FileNotFoundError, match="no network .*refused"):
        datasets.load("mnist", str(tmp_path))
    assert listing(tmp_path) == []


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize("damage", [truncate, Path.unlink])
def test_damaged_files(damage, tmp_path):
    write_data(tmp_path, "mnist", {"train": 300, "test": 5})
    file = "mnist-train.array_record-00000-of-00001"
    damage(tmp_path / "mnist" / "3.0.1" / file)
    message = f"cannot read mnist in data_dir {re.escape(str(tmp_path))}: "
    with pytest.raises(ValueError, match=message) as caught:
        datasets.load("mnist", str(tmp_path))
    assert "\n" not in str(caught.value)


# --- Preparing ------------------------------------------------------------------------


class Builder:
    """Stands in for a builder of TFDS: writes what it should, or half of it."""

    def __init__(self, fails, name, data_dir, file_format):
        assert file_format == "array_record"
        self.fails, self.name, self.root = fails, name, Path(data_dir)

    def download_and_prepare(self):
        (self.root / "downloads").mkdir()
        (self.root / "downloads" / "archive").write_bytes(b"...")
        if self.fails:
            raise RuntimeError("the line\nwas cut")
        write_data(self.root, self.name)


@pytest.fixture(params=[False, True], ids=["prepares", "fails"])
def fails(request, monkeypatch, extras):
    """Whether a preparation, which can begin, fails on the way."""
    tfds = pytest.importorskip("tensorflow_datasets")
    with_tensorflow(monkeypatch)
    monkeypatch.setattr(urllib.request, "urlopen", lambda url, timeout: io.BytesIO())
    builder, own = tfds.builder, functools.partial(Builder, request.param)
    # To read, a version is asked for; to prepare, a file format.
    choose = lambda *a, **k: (own if "file_format" in k else builder)(*a, **k)
    monkeypatch.setattr(tfds, "builder", choose)
    return request.param


def test_a_preparation_leaves_the_data_and_no_litter(tmp_path, fails, monkeypatch):
    (tmp_path / "mine").write_text("not to be lost")
    datasets.check("cifar10", str(tmp_path))
    if fails:
        with pytest.raises(FileNotFoundError, match="preparing cifar10 in") as caught:
            datasets.load("cifar10", str(tmp_path))
        assert "\n" not in str(caught.value)
        assert listing(tmp_path) == [str(tmp_path / "mine")]
    else:
        loaded = datasets.load("cifar10", str(tmp_path))
        assert len(loaded.train.labels) == 36
        assert {path.name for path in tmp_path.iterdir()} == {"cifar10", "mine"}
        monkeypatch.undo()
        again = datasets.load("cifar10", str(tmp_path))
        assert rows(again.train) == rows(loaded.train)
