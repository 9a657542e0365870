"""Data sets that TFDS has prepared as array_record files, read without TensorFlow.

TFDS prepares one itself only where there are TensorFlow and a network, and elsewhere
retries for minutes (204 s, TFDS 4.9.10); so this module looks first.
"""

from __future__ import annotations

import os
import re
import urllib.error
import urllib.request
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from coded_jax.checks import require
from coded_jax.data.sources import (
    Parts,
    Source,
    hold_out,
    missing_modules,
    require_modules,
)
from coded_jax.types import Split

TFDS_HOST = "https://storage.googleapis.com"  # that TFDS asks first


def find(name: str, data_dir: str | None) -> tuple[str, Path, str | None]:
    """Finds the newest version of a data set that can be read.

    Returns:
      The name of the data set, the folder of TFDS, and the version there; None if it is
      yet to be made.

    Raises:
      ValueError: `data_dir` is no folder, or the data there are not in the array_record
        format.
      ModuleNotFoundError: a module to read them with is not installed.
      FileNotFoundError: the data set is not prepared and cannot be prepared here.
    """
    named = os.environ.get("TFDS_DATA_DIR") if data_dir is None else data_dir
    root = Path(named or "~/tensorflow_datasets").expanduser().absolute()
    exists = named is None or (named != "" and root.is_dir())
    require("data_dir or TFDS_DATA_DIR", named, exists, "a folder")
    require_modules("tfds", "tensorflow_datasets", "array_record", "PIL")
    paths = (root / name).glob("*/dataset_info.json")
    done = [p for p in paths if re.fullmatch(r"\d+\.\d+\.\d+", p.parent.name)]
    readable = [p.parent.name for p in done if b'"array_record"' in p.read_bytes()]
    obstacle = "its files are not in the array_record format" if done else _obstacle()
    if obstacle and not readable:
        raise FileNotFoundError(
            f"dataset {name} is not in {root} and cannot be prepared here: {obstacle}. "
            "Set --data_dir or TFDS_DATA_DIR to a folder that has it, take a dataset "
            "that needs no download, or `pip install tensorflow importlib_resources` "
            "where there is a network"
        )
    newest = max(readable, key=lambda v: [int(x) for x in v.split(".")], default=None)
    return name, root, newest


def read(place: tuple[str, Path, str | None], image_size: int | None) -> Parts:
    """Reads a data set, which is prepared first if need be.

    Its test split stays. A tenth of the training split, 5,000 images at most, is for
    validation.

    Raises:
      ValueError: the data are damaged, or the preparation failed.
    """
    del image_size
    name, root, version = place
    if version is None:
        logging.warning("TFDS downloads %s and prepares it in %s now", name, root)
    verbosity = logging.get_verbosity()
    with warnings.catch_warnings(action="ignore"):  # TFDS's own are not ours to mend
        import tensorflow_datasets as tfds

        try:
            logging.set_verbosity(logging.ERROR)  # it would recommend OpenCV every time
            # Given a version, TFDS goes by the files, which may be older than its code.
            form = {"version": version} if version else {"file_format": "array_record"}
            builder: Any = tfds.builder(name, data_dir=root, **form)
            if version is None:
                builder.download_and_prepare()
            classes = builder.info.features["label"].num_classes
            whole, test = (_read_split(builder, split) for split in ("train", "test"))
        except Exception as e:  # array_record, Pillow and TFDS have no common type
            raise ValueError(f"cannot read {name} in data_dir {root}: {e!r}") from e
        finally:
            logging.set_verbosity(verbosity)
    return Parts(classes, *hold_out(whole), test)


SOURCE = Source(find, read)


def _read_split(builder: Any, split: str) -> Split:
    """Reads one split of prepared data into memory."""
    source = builder.as_data_source(split=split)
    images = np.empty((len(source), *builder.info.features["image"].shape), np.uint8)
    labels = np.empty(len(source), np.int32)
    for rows in np.split(np.arange(len(labels)), range(5000, len(labels), 5000)):
        examples = source.__getitems__(rows.tolist())  # 2.5 times as fast as [row]
        images[rows] = [example["image"] for example in examples]
        labels[rows] = [example["label"] for example in examples]
    return Split(images, labels)


def _obstacle() -> str | None:
    """Returns the reason why TFDS cannot prepare data here, or None."""
    if missing := missing_modules("tensorflow", "importlib_resources"):
        return f"{missing} not installed"
    try:
        urllib.request.urlopen(TFDS_HOST, timeout=2).close()
    except urllib.error.HTTPError:
        return None  # an error page is an answer
    except OSError as error:
        return f"no network ({error})"
    return None
