"""Images in folders: `train/`, and `val/` or `test/`, with a folder for each class.

Every run decodes them by Pillow, on all cores.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from coded_jax.checks import require
from coded_jax.data.sources import (
    Parts,
    Source,
    hold_out,
    require_modules,
    shuffled_parts,
)
from coded_jax.types import Split

TRAIN, VALIDATION, TEST = "train", "val", "test"
ENDINGS = (".jpg", ".jpeg", ".png")
MOST_NAMED = 3  # damaged files or classes, in an error


Files = dict[str, list[list[Path]]]
"""Maps the parts of a folder to the images of each class."""


def find(name: str, data_dir: str | None) -> Files:
    """Finds the classes of a folder, and the files of each part.

    Raises:
      ValueError: no folder is given, or a part is missing or has no images of a class,
        or other classes.
      ModuleNotFoundError: Pillow is not installed.
    """
    del name
    require_modules("images", "PIL")
    root = Path(data_dir or "").expanduser().absolute()
    present = [part for part in (TRAIN, VALIDATION, TEST) if (root / part).is_dir()]
    fits = bool(data_dir) and present[:1] == [TRAIN] and len(present) > 1
    accepted = "a folder with train/ and val/ or test/, which have one for each class,"
    require("data_dir", data_dir, fits, accepted)
    visible = lambda path: [p for p in path.iterdir() if not p.name.startswith(".")]
    classes, parts = [], {}
    for part in present:
        names = sorted(path.name for path in visible(root / part) if path.is_dir())
        classes = classes or names
        if names != classes or len(classes) < 2:
            accepted = "2 or more" if part == TRAIN else f"{_few(classes)} as in train/"
            raise ValueError(
                f"data_dir: {part}/ has the classes {_few(names)}, {accepted} accepted"
            )
        parts[part] = []
        for name in classes:
            files = visible(root / part / name)
            images = sorted(path for path in files if path.suffix.lower() in ENDINGS)
            accepted = f"images in {part}/{name}/, of {', '.join(ENDINGS)}"
            require("data_dir", data_dir, bool(images), accepted)
            parts[part].append(images)
    return parts


def _few(names: Sequence[str]) -> str:
    return f"[{', '.join(names[:MOST_NAMED])}{', ...' * (len(names) > MOST_NAMED)}]"


def read(files: Files, image_size: int | None) -> Parts:
    """Reads a folder of images into memory.

    The test part is `test/`, or `val/` if there is none. The validation part is `val/`
    if there are both, else a tenth of the training images, 5,000 at most. The order is
    drawn once for all. Images are grey if all files are stored as such; of 16 bits the
    upper eight count, and transparency is left out.

    Args:
      files: of the folder.
      image_size: rows and columns that images are resized to, what is not square cut at
        both ends; as they are if None.

    Raises:
      ValueError: files are damaged, of different sizes without `image_size`, or too few
        to hold some out for validation.
    """
    paths = [path for part in files.values() for own in part for path in own]
    labels = [
        np.repeat(np.arange(len(part), dtype=np.int32), [*map(len, part)])
        for part in files.values()
    ]
    ends = np.cumsum([*map(len, labels)])[:-1]
    splits = [*map(Split, np.split(_decoded(paths, image_size), ends), labels)]
    test = shuffled_parts(splits.pop())
    if len(splits) == 2:
        train, validation = (part for split in splits for part in shuffled_parts(split))
    else:
        train, validation = hold_out(splits[0])
    accepted = "10 or more, of which a tenth is held out, or both val/ and test/,"
    total, some = len(splits[0].labels), len(validation.labels) > 0
    require("data_dir: images in train/", total, some, accepted)
    return Parts(len(files[TRAIN]), train, validation, *test)


SOURCE = Source(find, read, own_images=True)


def _decoded(paths: list[Path], image_size: int | None) -> np.ndarray:
    """Decodes files to uint8 `[N, H, W, C]`.

    Raises:
      ValueError: some are damaged, or not all have one size.
    """
    root, damaged = paths[0].parents[2], []

    def decode(path: Path) -> Any:
        try:
            return decode_file(path, image_size)
        except Exception as error:  # Pillow's decoders have no common type
            damaged.append(f"{path.relative_to(root)} ({error or type(error)})")

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow decodes without the GIL
        images = [*pool.map(decode, paths)]
    if damaged:
        raise ValueError(
            f"data_dir: {len(damaged)} of {len(images)} images in {root} cannot "
            f"be decoded: {'; '.join(sorted(damaged)[:MOST_NAMED])}"
        )
    sizes = {image.shape[:2] for image in images}
    accepted = f"a size, as images have {min(sizes)} to {max(sizes)} pixels,"
    require("image_size", image_size, len(sizes) == 1, accepted)
    # One grey image among others in colours has three channels alike.
    shape = (*sizes.pop(), max(image.shape[-1] for image in images))
    return np.stack([np.broadcast_to(image, shape) for image in images])


def decode_file(path: Path, image_size: int | None) -> np.ndarray:
    """Decodes a file to uint8 `[H, W, 3]`, or `[H, W, 1]` if it is grey."""
    from PIL import Image, ImageOps

    with Image.open(path) as file:
        image = ImageOps.exif_transpose(file)
        if image.mode.startswith("I"):  # 16 bits, which Pillow would cut off at 255
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        grey = image.mode in ("1", "L", "LA", "La")
        image = image.convert("L" if grey else "RGB")
    return resize(image, image_size)


def resize(image: Any, size: int | None) -> np.ndarray:
    """Resizes an image of Pillow, what is not square cut at both ends.

    Returns:
      uint8 `[H, W, C]`; `H` and `W` are `size`, or as they are if that is None.
    """
    from PIL import Image, ImageOps

    if size is not None and image.size != (size, size):
        image = ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)
    return np.asarray(image).reshape(image.height, image.width, -1)
