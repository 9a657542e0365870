"""Data sets that TFDS has prepared as array_record files, read without TensorFlow.

TFDS prepares one itself only where there are TensorFlow and a network, and elsewhere
retries for minutes (204 s, TFDS 4.9.10); so this module looks first.
"""

from __future__ import annotations

import http.client
import os
import re
import tempfile
import urllib.error
import urllib.request
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from coded_jax.data.sources import (
    Source,
    make_dataset,
    missing_modules,
    require_modules,
    shuffled_parts,
    validation_images,
)
from coded_jax.types import Dataset, Split

TFDS_HOST = "https://storage.googleapis.com"  # that TFDS asks first


def check(name: str, data_dir: str | None) -> None:
    """Checks that a data set is prepared, or can be prepared here.

    Raises:
      ValueError: `data_dir` is no folder, or the data there are not in the array_record
        format.
      ModuleNotFoundError: a module to read them with is not installed.
      FileNotFoundError: the data set is not prepared and cannot be prepared here.
    """
    root = _root(data_dir)
    require_modules("tfds", "tensorflow_datasets", "array_record", "PIL")
    if _version(root, name) is None and (obstacle := _obstacle()):
        raise FileNotFoundError(
            f"dataset {name} is not in {root} and cannot be prepared here: {obstacle}. "
            "Set --data_dir or TFDS_DATA_DIR to a folder that has it, take a dataset "
            "that needs no download, or `pip install tensorflow importlib_resources` "
            "where there is a network"
        )


def load(name: str, data_dir: str | None) -> Dataset:
    """Reads a data set, which is prepared first if need be.

    Its test split stays. A tenth of the training split, 5,000 images at most, is for
    validation.

    Raises:
      ValueError: the data are damaged.
      FileNotFoundError: the preparation failed.
    """
    root = _root(data_dir)
    version = _version(root, name) or _prepare(name, root)
    verbosity = logging.get_verbosity()
    with warnings.catch_warnings(action="ignore"):  # TFDS's own are not ours to mend
        import tensorflow_datasets as tfds

        try:
            logging.set_verbosity(logging.ERROR)  # it would recommend OpenCV every time
            # Given a version, TFDS goes by the files, which may be older than its code.
            builder: Any = tfds.builder(name, data_dir=root, version=version)
            classes = builder.info.features["label"].num_classes
            whole, test = (_read(builder, split) for split in ("train", "test"))
        except Exception as e:  # array_record, Pillow and TFDS have no common type
            raise ValueError(f"cannot read {name} in data_dir {root}: {e!r}") from e
        finally:
            logging.set_verbosity(verbosity)
    total = len(whole.labels)
    train, validation = shuffled_parts(whole, total - validation_images(total))
    return make_dataset(name, classes, train, validation, test)


SOURCE = Source(check, load)


def _read(builder: Any, split: str) -> Split:
    """Reads one split of prepared data into memory."""
    source = builder.as_data_source(split=split)
    images = np.empty((len(source), *builder.info.features["image"].shape), np.uint8)
    labels = np.empty(len(source), np.int32)
    for rows in np.split(np.arange(len(labels)), range(5000, len(labels), 5000)):
        examples = source.__getitems__(rows.tolist())  # 2.5 times as fast as [row]
        images[rows] = [example["image"] for example in examples]
        labels[rows] = [example["label"] for example in examples]
    return Split(images, labels)


def _prepare(name: str, root: Path) -> str:
    """Has TFDS prepare a data set, or leaves nothing behind; returns its version."""
    import tensorflow_datasets as tfds

    logging.warning("%s is not in %s: TFDS downloads and prepares it now", name, root)
    parent = next(path for path in (root, *root.parents) if path.exists())
    try:
        # Made aside and then moved, so that cleaning up never touches what is not ours.
        with tempfile.TemporaryDirectory(prefix=".coded_jax-", dir=parent) as aside:
            builder = tfds.builder(name, data_dir=aside, file_format="array_record")
            builder.download_and_prepare()  # downloads into `aside`, too
            folder = next(Path(aside, name).glob("*/dataset_info.json")).parent
            (root / name).mkdir(parents=True, exist_ok=True)
            if _version(root, name) is None:  # else another run was faster
                folder.rename(root / name / folder.name)
    except Exception as e:
        raise FileNotFoundError(f"preparing {name} in {root} failed: {e!r}") from e
    return folder.name


def _root(data_dir: str | None) -> Path:
    """Returns the folder that holds the data sets; it exists if the user named it."""
    named = os.environ.get("TFDS_DATA_DIR") if data_dir is None else data_dir
    root = Path(named or "~/tensorflow_datasets").expanduser().absolute()
    if named is not None and not (named and root.is_dir()):
        raise ValueError(
            f"data_dir or TFDS_DATA_DIR: {named!r} given, a folder accepted"
        )
    return root


def _version(root: Path, name: str) -> str | None:
    """Returns the newest finished version that can be read, None if none is finished.

    Raises:
      ValueError: all that are finished are in another file format.
    """
    paths = (root / name).glob("*/dataset_info.json")
    done = [p for p in paths if re.fullmatch(r"\d+\.\d+\.\d+", p.parent.name)]
    readable = [p.parent.name for p in done if b'"array_record"' in p.read_bytes()]
    if done and not readable:
        formats = "in another file format; accepted: array_record"
        raise ValueError(f"data_dir {root} holds {name} {formats}")
    return max(readable, key=lambda v: [int(x) for x in v.split(".")], default=None)


def _obstacle() -> str | None:
    """Returns the reason why TFDS cannot prepare data here, or None."""
    if missing := missing_modules("tensorflow", "importlib_resources"):
        return f"{missing} not installed"
    try:
        urllib.request.urlopen(TFDS_HOST, timeout=2).close()
    except urllib.error.HTTPError:
        return None  # an error page is an answer
    except (OSError, http.client.HTTPException) as error:
        return f"no network ({error})"
    return None
