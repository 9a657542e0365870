"""Images in folders: `train/`, and `val/` or `test/`, with a folder for each class.

They are decoded once by Pillow, and kept as arrays in `~/.cache/coded_jax/images` under
a name that changes with any file.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import logging
from rich.console import Console
from rich.progress import track

from coded_jax.data.resizing import resize
from coded_jax.data.sources import (
    Source,
    channel_statistics,
    require_modules,
    shuffled_parts,
    validation_images,
)
from coded_jax.types import Dataset, Split

TRAIN, VALIDATION, TEST = "train", "val", "test"
ENDINGS = (".jpg", ".jpeg", ".png")
MOST_NAMED = 3  # damaged files, in an error
LAYOUT = "2"  # of what is kept; another one makes it anew


class Part(NamedTuple):
    """The files of one part of a data set.

    Attributes:
      paths: of the images, class by class.
      labels: int32 `[N]`.
    """

    paths: list[Path]
    labels: np.ndarray


def check(name: str, data_dir: str | None) -> None:
    """Checks that a folder has parts with images of the same classes.

    Raises:
      ValueError: it has not, or none is given.
      ModuleNotFoundError: Pillow is not installed.
    """
    del name
    require_modules("images", "PIL")
    _parts_of(_root(data_dir))


def load(name: str, data_dir: str | None, image_size: int | None) -> Dataset:
    """Reads a folder of images into memory.

    The test part is `test/`, or `val/` if there is none. The validation part is `val/`
    if there are both, else a tenth of the training images, 5,000 at most. The order is
    drawn once for all. Images are grey if all files are stored as such; of 16 bits the
    upper eight count, and transparency is left out.

    Args:
      name: of the data set.
      data_dir: the folder.
      image_size: rows and columns that images are resized to, what is not square cut at
        both ends; as they are if None.

    Raises:
      ValueError: files are damaged, of different sizes without `image_size`, or see
        `check`.
    """
    root = _root(data_dir)
    classes, parts = _parts_of(root)
    arrays = _kept_arrays(root, parts, image_size)
    splits = {part: Split(arrays[part], files.labels) for part, files in parts.items()}
    if TEST in splits and VALIDATION in splits:
        (train,), (validation,) = map(
            shuffled_parts, (splits[TRAIN], splits[VALIDATION])
        )
    else:
        total = len(splits[TRAIN].labels)
        held_out = validation_images(total)
        if not held_out:
            raise ValueError(
                f"data_dir: {TRAIN}/ has {total} images, 10 or more accepted, of which "
                f"a tenth is held out (or both {VALIDATION}/ and {TEST}/)"
            )
        train, validation = shuffled_parts(splits[TRAIN], total - held_out)
    (test,) = shuffled_parts(splits[TEST if TEST in splits else VALIDATION])
    statistics = channel_statistics(train.images)
    return Dataset(name, len(classes), train, validation, test, *statistics)


SOURCE = Source(check, load, sized=True, own_images=True)


def _root(data_dir: str | None) -> Path:
    root = Path(data_dir or "").expanduser().absolute()
    if not data_dir or not root.is_dir():
        raise ValueError(
            f"data_dir: {data_dir!r} given, a folder with {TRAIN}/ and {VALIDATION}/ "
            f"or {TEST}/ accepted, each with a folder of images for each class"
        )
    return root


def _parts_of(root: Path) -> tuple[list[str], dict[str, Part]]:
    """Returns the names of the classes, and the files of each part.

    Raises:
      ValueError: a part is missing or has no images of a class, or other classes.
    """
    present = [part for part in (TRAIN, VALIDATION, TEST) if (root / part).is_dir()]
    if present[:1] != [TRAIN] or len(present) < 2:
        raise ValueError(
            f"data_dir: {str(root)!r} has {present or 'none'} of the folders "
            f"[{TRAIN!r}, {VALIDATION!r}, {TEST!r}]; {TRAIN!r} and one of the others "
            "accepted"
        )
    names = {part: _folders(root / part) for part in present}
    classes, parts = names[TRAIN], {}
    for part in present:
        if names[part] != classes or len(classes) < 2:
            raise ValueError(
                f"data_dir: {part}/ has the classes {_few(names[part])}, "
                f"{_few(classes) if part != TRAIN else '2 or more'} accepted"
                + (f", as in {TRAIN}/" if part != TRAIN else "")
            )
        files = [_images(root / part / name) for name in classes]
        for name, own in zip(classes, files, strict=True):
            if not own:
                raise ValueError(
                    f"data_dir: {part}/{name}/ has no images, some of "
                    f"{', '.join(ENDINGS)} accepted"
                )
        labels = np.repeat(np.arange(len(files), dtype=np.int32), [*map(len, files)])
        parts[part] = Part([path for own in files for path in own], labels)
    return classes, parts


def _folders(path: Path) -> list[str]:
    return sorted(
        entry.name
        for entry in os.scandir(path)
        if entry.is_dir() and not entry.name.startswith(".")
    )


def _images(path: Path) -> list[Path]:
    return sorted(
        Path(entry.path)
        for entry in os.scandir(path)
        if entry.name.lower().endswith(ENDINGS) and not entry.name.startswith(".")
    )


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(names[:MOST_NAMED])
    return f"[{shown}{', ...' if len(names) > MOST_NAMED else ''}]"


def _kept_arrays(
    root: Path, parts: dict[str, Part], image_size: int | None
) -> dict[str, np.ndarray]:
    """Returns the images of each part, decoded now or by a former process."""
    kept = _kept_file(root, parts, image_size)
    with contextlib.suppress(FileNotFoundError, ValueError, EOFError):
        with np.load(kept) as arrays:
            return dict(arrays)
    paths = [path for files in parts.values() for path in files.paths]
    images = _decoded(root, paths, image_size)
    ends = np.cumsum([len(files.paths) for files in parts.values()])
    pieces = np.split(images, ends[:-1])
    arrays = dict(zip(parts, pieces, strict=True))
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=kept.parent, delete=False) as file:
            try:
                np.savez(file, **arrays)  # type: ignore
                file.close()
                os.replace(file.name, kept)
            except BaseException:
                os.unlink(file.name)
                raise
    except OSError as error:  # a full disk only costs the next run some seconds
        logging.warning("%s: decoded images are not kept there: %s", kept.parent, error)
    return arrays


def _kept_file(root: Path, parts: dict[str, Part], image_size: int | None) -> Path:
    sha = hashlib.sha256(f"{LAYOUT} {image_size} {root}".encode())
    for files in parts.values():
        for path in files.paths:
            status = path.stat()
            relative = path.relative_to(root)
            sha.update(f"{relative} {status.st_size} {status.st_mtime_ns}".encode())
    folder = Path("~/.cache/coded_jax/images").expanduser()
    return folder / f"{sha.hexdigest()[:16]}.npz"


def _decoded(root: Path, paths: list[Path], image_size: int | None) -> np.ndarray:
    """Decodes files to uint8 `[N, H, W, C]`.

    Raises:
      ValueError: some are damaged, or not all have one size.
    """
    damaged: list[str] = []

    def decode(path: Path) -> Any:
        try:
            return _decode(path, image_size)
        except Exception as error:  # Pillow's decoders have no common type
            damaged.append(f"{path.relative_to(root)} ({error or type(error)})")
            return None

    console = Console(stderr=True)
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow decodes without the GIL
        decoding = track(
            pool.map(decode, paths),
            "decoding images",
            len(paths),
            console=console,
            disable=not console.is_terminal,
        )
        images = [*decoding]
    if damaged:
        shown = "; ".join(sorted(damaged)[:MOST_NAMED])
        more = len(damaged) - MOST_NAMED
        raise ValueError(
            f"data_dir: {len(damaged)} of {len(paths)} images in {root} cannot be "
            f"decoded: {shown}{f'; and {more} more' if more > 0 else ''}"
        )
    for path, image in zip(paths, images, strict=True):
        if image.shape[:2] != images[0].shape[:2]:
            raise ValueError(
                f"image_size: None given, a size accepted, since {paths[0].name} has "
                f"{images[0].shape[:2]} pixels and {path.relative_to(root)} "
                f"{image.shape[:2]}"
            )
    channels = max(image.shape[-1] for image in images)
    out = np.empty((len(images), *images[0].shape[:2], channels), np.uint8)
    for row, image in zip(out, images, strict=True):
        row[...] = image
    return out


def _decode(path: Path, image_size: int | None) -> np.ndarray:
    """Decodes a file to uint8 `[H, W, 3]`, or `[H, W, 1]` if it is grey."""
    from PIL import Image, ImageOps

    with Image.open(path) as file:
        image = ImageOps.exif_transpose(file)
        if image.mode.startswith("I"):  # 16 bits, which Pillow would cut off at 255
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        grey = image.mode in ("1", "L", "LA", "La")
        image = image.convert("L" if grey else "RGB")
    return resize(image, image_size)
