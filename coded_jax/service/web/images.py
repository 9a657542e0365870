"""Images of a request: the bytes of an `.npy`, PNG or JPEG file as an array."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from typing import Any

import numpy as np

from coded_jax.checks import require
from coded_jax.runs.coded_model import CodedModel

NPY = b"\x93NUMPY"
MAGIC = {NPY: ".npy", b"\x89PNG\r\n\x1a\n": "PNG", b"\xff\xd8\xff": "JPEG"}
"""First bytes of files, by format. The header `Content-Type` is not relied on."""
FORMS = {1: "grey of 8 bits", 3: "RGB of 8 bits"}
"""Pictures whose pixels are those of a network, by its channels."""


class UnsupportedFormat(ValueError):
    """The bytes are in no format that the network's images can come in."""


def kind_of(model: CodedModel) -> tuple[tuple[int, int, int], str]:
    """Returns the shape `(H, W, C)` and the dtype of a model's images."""
    return model.image_shape, str(np.dtype(model.pipeline.image_dtype))


def decode(body: bytes, shape: tuple[int, int, int], dtype: str) -> np.ndarray:
    """Decodes the images of a request. Nothing is unpickled.

    Args:
      body: an `.npy` file of `[B, H, W, C]` or of one image `[H, W, C]`, in any dtype;
        or a PNG or JPEG file of one image of just this size, for uint8.
      shape: `(H, W, C)` that the network takes.
      dtype: that it takes.

    Returns:
      `[B, H, W, C]`. What an `.npy` file has is not checked further.

    Raises:
      UnsupportedFormat: the bytes are of another format.
      ValueError: they are damaged, or an image of another size or with other channels.
    """
    require("body", "no bytes", bool(body), "an .npy, PNG or JPEG file")
    kinds = [kind for magic, kind in MAGIC.items() if body.startswith(magic)]
    accepted = "an .npy, PNG or JPEG" if dtype == "uint8" else f"an .npy of {dtype}"
    if not kinds or (kinds != [".npy"] and dtype != "uint8"):
        given = kinds[0] if kinds else "another format"
        raise UnsupportedFormat(f"body: {given} given, {accepted} file accepted")
    if kinds != [".npy"]:
        return _decode_picture(body, kinds[0], shape)[None]
    try:
        images = np.lib.format.read_array(io.BytesIO(body), allow_pickle=False)
    except Exception:  # of many types, as the header is an expression of Python
        damaged = "body: damaged or of objects given, a whole .npy of numbers accepted"
        raise ValueError(damaged) from None
    return images[None] if images.ndim == len(shape) else images


def _decode_picture(body: bytes, kind: str, shape: tuple[int, int, int]) -> np.ndarray:
    """Returns the pixels uint8 `[H, W, C]`, each value as the file has it."""
    from PIL import Image, ImageOps

    rows, columns, channels = shape
    with _whole(kind):
        picture = Image.open(io.BytesIO(body), formats=[kind])
    # Of a file that unpacks to more, the head alone is read: size and form are compared
    # before any pixel is made. It may be turned, which Pillow tells afterwards.
    width, height = picture.size
    fits = (height, width) in ((rows, columns), (columns, rows))
    _require(f"{height}x{width}", f"{rows}x{columns}", fits)
    accepted = FORMS.get(channels, "no picture, but .npy")
    given = _form(picture, body)
    _require(given, accepted, given == accepted)
    with _whole(kind):
        # As it is shown, and as the images of a folder are read.
        pixels = np.asarray(ImageOps.exif_transpose(picture))
    height, width = pixels.shape[:2]
    fits = (height, width) == (rows, columns)
    _require(f"{height}x{width}", f"{rows}x{columns}", fits)
    return pixels.reshape(shape)


def _require(given: str, accepted: str, holds: bool) -> None:
    if not holds:
        raise ValueError(f"image: {given} given, {accepted} accepted")


def _form(picture: Any, body: bytes) -> str:
    """Returns the form of the pixels: one of `FORMS`, or the reason for a refusal."""
    if getattr(picture, "is_animated", False):
        return "several images"
    if picture.format == "PNG" and body[24] == 16:  # which Pillow cuts off at 8
        return "16 bits"
    if "transparency" in picture.info:
        return "transparency"
    channels = {"L": 1, "RGB": 3}.get(picture.mode)
    return FORMS[channels] if channels else f"mode {picture.mode}"


@contextlib.contextmanager
def _whole(kind: str) -> Iterator[None]:
    """Raises one error for the many that Pillow has for damaged files."""
    try:
        yield
    except Exception:
        damaged = f"image: a damaged {kind} given, a whole one accepted"
        raise ValueError(damaged) from None
